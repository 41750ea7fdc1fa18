// NVIDIA's published children: their configurations, written by hand from the Puzzle paper and, for
// the 253B, from what llama.cpp prints of it; no weights. What `puzzle inspect` says of them.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "arch/naive_tensors.h"
#include "puzzle/arch/cost.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/inspect.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;

// Layers first … last: KV heads, NO or LIN; width, 0 = no FFN.
struct PublishedRun {
  int first;
  int last;
  const char* attention;
  int width;
};

const std::vector<PublishedRun>& nemotron_51b() {
  static const std::vector<PublishedRun> runs = {
      {0, 0, "8", 7168},     {1, 1, "4", 14336},     {2, 4, "8", 28672},     {5, 6, "2", 14336},
      {7, 8, "1", 14336},    {9, 10, "2", 14336},    {11, 11, "LIN", 14336}, {12, 12, "1", 14336},
      {13, 14, "2", 14336},  {15, 15, "LIN", 7168},  {16, 34, "8", 28672},   {35, 35, "LIN", 14336},
      {36, 37, "8", 28672},  {38, 38, "LIN", 14336}, {39, 39, "LIN", 28672}, {40, 42, "LIN", 14336},
      {43, 43, "NO", 7168},  {44, 44, "LIN", 7168},  {45, 45, "8", 28672},   {46, 46, "NO", 7168},
      {47, 47, "LIN", 7168}, {48, 48, "NO", 7168},   {49, 49, "8", 28672},   {50, 50, "LIN", 7168},
      {51, 51, "NO", 7168},  {52, 53, "LIN", 7168},  {54, 55, "NO", 7168},   {56, 56, "LIN", 7168},
      {57, 58, "NO", 7168},  {59, 62, "LIN", 7168},  {63, 79, "8", 28672}};
  return runs;
}

const std::vector<PublishedRun>& nemotron_49b() {
  static const std::vector<PublishedRun> runs = {
      {0, 0, "8", 14336},    {1, 5, "8", 28672},    {6, 7, "NO", 14336},  {8, 10, "8", 28672},
      {11, 11, "NO", 17920}, {12, 41, "8", 28672},  {42, 42, "NO", 7168}, {43, 44, "NO", 14336},
      {45, 45, "NO", 7168},  {46, 46, "NO", 28672}, {47, 47, "NO", 7168}, {48, 48, "NO", 14336},
      {49, 51, "NO", 7168},  {52, 52, "8", 28672},  {53, 53, "NO", 7168}, {54, 55, "NO", 5632},
      {56, 56, "NO", 7168},  {57, 59, "NO", 5632},  {60, 61, "NO", 7168}, {62, 63, "NO", 2816},
      {64, 65, "NO", 5632},  {66, 67, "NO", 2816},  {68, 68, "NO", 5632}, {69, 70, "NO", 2816},
      {71, 79, "8", 28672}};
  return runs;
}

// FFN fusion left 81 empty layers and four very wide FFNs.
const std::vector<PublishedRun>& nemotron_253b() {
  static const std::vector<PublishedRun> runs = {
      {0, 0, "8", 5376},        {1, 1, "8", 10752},       {2, 7, "8", 16128},
      {8, 8, "8", 21504},       {9, 12, "NO", 0},         {13, 15, "8", 21504},
      {16, 17, "8", 53248},     {18, 23, "NO", 0},        {24, 26, "8", 53248},
      {27, 31, "NO", 0},        {32, 34, "8", 53248},     {35, 35, "8", 26624},
      {36, 38, "NO", 0},        {39, 41, "8", 21504},     {42, 42, "NO", 21504},
      {43, 43, "8", 53248},     {44, 44, "NO", 53248},    {45, 49, "NO", 0},
      {50, 53, "8", 53248},     {54, 58, "NO", 0},        {59, 62, "8", 53248},
      {63, 67, "NO", 0},        {68, 71, "8", 53248},     {72, 76, "NO", 0},
      {77, 80, "8", 53248},     {81, 85, "NO", 0},        {86, 86, "8", 53248},
      {87, 89, "8", 37376},     {90, 91, "NO", 0},        {92, 92, "8", 32000},
      {93, 95, "8", 26624},     {96, 97, "NO", 26624},    {98, 98, "8", 26624},
      {99, 99, "NO", 0},        {100, 106, "NO", 26624},  {107, 107, "8", 26624},
      {108, 112, "NO", 0},      {113, 113, "8", 32000},   {114, 114, "8", 53248},
      {115, 115, "NO", 53248},  {116, 116, "8", 53248},   {117, 124, "NO", 0},
      {125, 125, "NO", 399360}, {126, 133, "NO", 0},      {134, 134, "NO", 425984},
      {135, 142, "NO", 0},      {143, 143, "NO", 343040}, {144, 148, "NO", 0},
      {149, 149, "NO", 301056}, {150, 150, "NO", 21504},  {151, 151, "8", 21504},
      {152, 152, "8", 26624},   {153, 153, "NO", 0},      {154, 155, "8", 26624},
      {156, 156, "8", 37376},   {157, 160, "8", 53248},   {161, 161, "8", 26624}};
  return runs;
}

// Two widths of the 49B stand in its file as numbers that are rounded up to them.
double published_mult(int width, int hidden_size) {
  if (width == 5632) {
    return 1.0;
  }
  return width == 2816 ? 0.5 : 3.0 * width / (2.0 * hidden_size);
}

Json published_block(const PublishedRun& run, int hidden_size, int num_heads) {
  const std::string kind = run.attention;
  Json attention = {{"n_heads_in_group", nullptr},
                    {"no_op", kind == "NO"},
                    {"num_sink_tokens", nullptr},
                    {"replace_with_linear", kind == "LIN"},
                    {"sparsify", nullptr},
                    {"unshifted_sink", false},
                    {"use_prefill_window_in_sink_attention", false},
                    {"window_length", nullptr}};
  if (kind != "NO" && kind != "LIN") {
    attention["n_heads_in_group"] = num_heads / std::stoi(kind);
  }
  Json ffn = {{"ffn_mult", nullptr},
              {"no_op", run.width == 0},
              {"replace_with_linear", false},
              {"sparsify", nullptr}};
  if (run.width != 0) {
    ffn["ffn_mult"] = published_mult(run.width, hidden_size);
  }
  return {{"attention", attention}, {"ffn", ffn}};
}

// The encodings of NVIDIA's files.
Json published_config(const std::vector<PublishedRun>& runs, int hidden_size, int num_heads) {
  Json blocks = Json::array();
  for (const PublishedRun& run : runs) {
    for (int layer = run.first; layer <= run.last; ++layer) {
      EXPECT_EQ(static_cast<std::size_t>(layer), blocks.size());
      blocks.push_back(published_block(run, hidden_size, num_heads));
    }
  }
  return {{"architectures", {"DeciLMForCausalLM"}},
          {"model_type", "nemotron-nas"},
          {"auto_map", {{"AutoConfig", "configuration_decilm.DeciLMConfig"}}},
          {"block_configs", blocks},
          {"num_hidden_layers", blocks.size()},
          {"hidden_size", hidden_size},
          {"num_attention_heads", num_heads},
          {"num_key_value_heads", nullptr},
          {"intermediate_size", nullptr},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},
          {"max_position_embeddings", 131072},
          {"rope_theta", 500000.0},
          {"rope_scaling",
           {{"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 8192},
            {"rope_type", "llama3"}}},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", false},
          {"vocab_size", 128256},
          {"bos_token_id", 128000},
          {"eos_token_id", {128001, 128008, 128009}},
          {"torch_dtype", "bfloat16"}};
}

struct PublishedSize {
  std::int64_t parameters;
  std::int64_t kv_heads;  // of all layers
  const char* text;       // part of what inspect prints
};

void expect_inspected(const ModelSpec& spec, const PublishedSize& size) {
  EXPECT_EQ(test::total_elements(test::naive_hf_tensors(spec)), size.parameters);
  const WeightTypes types{DType::kBF16, DType::kBF16, DType::kBF16, DType::kF16};
  const std::vector<PartSize> parts = part_sizes(spec, ExportTarget::kNative, types);
  const Json json = describe_json(spec, parts);
  EXPECT_EQ(json.at("parameters"), size.parameters);
  EXPECT_EQ(json.at("weight_bytes"), 2 * size.parameters);
  EXPECT_EQ(json.at("kv_bytes_per_token_f16"), size.kv_heads * 128 * 2 * 2);  // K and V, two bytes
  const std::string text = describe(spec, parts);
  EXPECT_THAT(text, HasSubstr(std::to_string(size.parameters)));
  EXPECT_THAT(text, HasSubstr(size.text));
  // As a child of ours it is the same model.
  EXPECT_EQ(parse_hf_config(make_nemotron_nas_config(spec, "bfloat16"), "again"), spec);
}

TEST(PublishedModels, Nemotron51B) {
  const ModelSpec spec = parse_hf_config(published_config(nemotron_51b(), 8192, 64), "51B");
  ASSERT_EQ(spec.num_layers(), 80);
  EXPECT_EQ(spec.layers[39].name(), "linear/w28672");
  EXPECT_EQ(spec.layers[43].name(), "none/w7168");
  expect_inspected(spec, {51501015040, 371, "KV cache     185.5 KiB per token in F16"});
}

TEST(PublishedModels, Nemotron49B) {
  const ModelSpec spec = parse_hf_config(published_config(nemotron_49b(), 8192, 64), "49B");
  ASSERT_EQ(spec.num_layers(), 80);
  EXPECT_EQ(spec.layers[11].name(), "none/w17920");
  EXPECT_EQ(spec.layers[54].name(), "none/w5632");
  EXPECT_EQ(spec.layers[62].name(), "none/w2816");
  expect_inspected(spec, {49867145216, 49 * 8, "KV cache     196.0 KiB per token in F16"});
}

TEST(PublishedModels, Nemotron253B) {
  const ModelSpec spec = parse_hf_config(published_config(nemotron_253b(), 16384, 128), "253B");
  ASSERT_EQ(spec.num_layers(), 162);
  EXPECT_EQ(spec.layers[134].name(), "none/w425984");
  std::int64_t empty = 0;
  for (const BlockSpec& block : spec.layers) {
    empty += block.name() == "none/none" ? 1 : 0;
  }
  EXPECT_EQ(empty, 81);
  // llama.cpp prints 253.401 B parameters.
  expect_inspected(spec, {253401268224, 64 * 8, "KV cache     256.0 KiB per token in F16"});
}

}  // namespace
}  // namespace puzzle
