// The `nemotron-nas` half of hf_config.h.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "arch/naive_tensors.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/base/json.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::parse_layers;
using test::small_spec;

ModelSpec round_trip(const ModelSpec& spec) {
  const std::string text = make_nemotron_nas_config(spec, "bfloat16").dump();
  return parse_hf_config(parse_json(text, "config.json"), "config.json");
}

TEST(NemotronNas, EverySpecComesBack) {
  ModelSpec spec = small_spec(test::all_small_blocks());
  EXPECT_EQ(round_trip(spec), spec);
  spec.layers.push_back(parse_block("kv4/w256"));
  spec.layers.push_back(parse_block("kv4/w512"));
  spec.layers.push_back(parse_block("kv4/w1000"));
  spec.name = "a \"name\" with ü";
  spec.head_dim = 32;
  spec.tie_embeddings = true;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  spec.rms_norm_eps = 1e-6;
  EXPECT_EQ(round_trip(spec), spec);
  spec.qk_norm = true;
  spec.context_limit = "a window of the parent";
  EXPECT_EQ(round_trip(spec), spec);
  spec.eos_tokens = {2, 5, 3};
  for (const bool qkv : {false, true}) {
    for (const bool output : {false, true}) {
      spec.attention_bias = qkv;
      spec.attention_output_bias = output;
      spec.mlp_bias = qkv;
      EXPECT_EQ(round_trip(spec), spec);
    }
  }
}

TEST(NemotronNas, EveryRopeComesBack) {
  std::vector<float> divisors(8);
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    divisors[i] = 1.0F + static_cast<float>(i) / 3.0F;
  }
  const std::vector<RopeSpec> ropes = {
      {.theta = 123456.7},
      {.kind = RopeKind::kLinear, .factor = 4.0},
      {.kind = RopeKind::kLlama3, .theta = 5e5, .factor = 32.0, .original_context = 8192},
      {.kind = RopeKind::kLlama3,
       .low_frequency_factor = 0.5,
       .high_frequency_factor = 3.0,
       .original_context = 100},
      {.kind = RopeKind::kLlama3,
       .factor = 8.0,
       .original_context = 64,
       .frequency_divisors = divisors},
      {.kind = RopeKind::kLlama3, .frequency_divisors = divisors},  // no settings give these
      {.kind = RopeKind::kYarn, .factor = 4.0, .original_context = 32},
      {.kind = RopeKind::kYarn,
       .factor = 4.0,
       .original_context = 32,
       .beta_fast = 20.0,
       .beta_slow = 0.5,
       .attention_factor = 1.25,
       .truncate = false},
  };
  for (const RopeSpec& rope : ropes) {
    ModelSpec spec = small_spec();
    spec.rope = rope;
    EXPECT_EQ(round_trip(spec), spec) << rope_kind_name(rope.kind);
  }
}

TEST(NemotronNas, WritesWhatEveryReaderExpects) {
  ModelSpec spec = small_spec(parse_layers({"kv2/w256", "linear/none", "none/linear", "kv1/w96"}));
  const Json config = make_nemotron_nas_config(spec, "float16");
  EXPECT_EQ(config.at("architectures"), Json({"DeciLMForCausalLM"}));
  EXPECT_EQ(config.at("model_type"), "nemotron-nas");
  EXPECT_EQ(config.at("torch_dtype"), "float16");
  EXPECT_TRUE(config.at("num_key_value_heads").is_null());
  EXPECT_TRUE(config.at("intermediate_size").is_null());
  EXPECT_TRUE(config.at("rope_scaling").is_null());
  EXPECT_EQ(config.at("num_hidden_layers"), 4);
  const Json& blocks = config.at("block_configs");
  // Exactly these keys: some readers take them as keyword arguments (docs/formats.md).
  const std::vector<std::string> attention_keys = {"n_heads_in_group",
                                                   "no_op",
                                                   "num_sink_tokens",
                                                   "replace_with_linear",
                                                   "sparsify",
                                                   "unshifted_sink",
                                                   "use_prefill_window_in_sink_attention",
                                                   "window_length"};
  const auto keys = [](const Json& object) {
    std::vector<std::string> names;
    for (const auto& [name, value] : object.items()) {
      names.push_back(name);
    }
    return names;
  };
  for (const Json& block : blocks) {
    EXPECT_EQ(keys(block.at("attention")), attention_keys);
  }
  for (const std::size_t i : {0U, 1U, 2U}) {
    EXPECT_THAT(keys(blocks[i].at("ffn")),
                ::testing::ElementsAre("ffn_mult", "no_op", "replace_with_linear", "sparsify"));
  }
  EXPECT_EQ(blocks[0].at("attention").at("n_heads_in_group"), 2);
  EXPECT_TRUE(blocks[0].at("ffn").at("ffn_mult").is_number_float());
  EXPECT_EQ(blocks[0].at("ffn").at("ffn_mult"), 6.0);
  EXPECT_EQ(blocks[0].at("ffn").dump(),
            R"({"ffn_mult":6.0,"no_op":false,"replace_with_linear":false,"sparsify":null})");
  EXPECT_TRUE(blocks[1].at("attention").at("n_heads_in_group").is_null());
  EXPECT_EQ(blocks[1].at("attention").at("replace_with_linear"), true);
  EXPECT_EQ(blocks[1].at("ffn").at("no_op"), true);
  EXPECT_EQ(blocks[2].at("attention").at("no_op"), true);
  EXPECT_EQ(blocks[2].at("ffn").at("replace_with_linear"), true);
  EXPECT_TRUE(blocks[2].at("ffn").at("ffn_mult").is_null());
  // 96 is no multiple of 256: readers look for ffn_mult first, so it must be absent.
  EXPECT_FALSE(blocks[3].at("ffn").contains("ffn_mult"));
  EXPECT_EQ(blocks[3].at("ffn").at("intermediate_size"), 96);
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_nemotron_nas_config(spec, "int8")), ErrorKind::kUsage,
                      "torch_dtype 'int8'");
}

// The shared rounding rule, in integers where possible, for the number rounded to 6 decimals or
// not.
std::int64_t reader_width(double ffn_mult, std::int64_t hidden_size, bool rounds) {
  if (rounds) {
    ffn_mult = std::round(ffn_mult * 1e6) / 1e6;
  }
  const auto n = static_cast<std::int64_t>(((2 * ffn_mult) * static_cast<double>(hidden_size)) / 3);
  return n % 256 == 0 ? n : n + 256 - n % 256;
}

TEST(NemotronNas, FfnMultMapsBackInEveryReader) {
  for (const std::int64_t hidden : {576, 960, 2048, 3072, 4096, 5120, 8192, 16384}) {
    for (std::int64_t width = 256; width <= 8 * hidden; width += 256) {
      const double mult = ffn_mult_of(width, hidden);
      EXPECT_EQ(reader_width(mult, hidden, true), width) << hidden;
      EXPECT_EQ(reader_width(mult, hidden, false), width) << hidden;
      EXPECT_EQ(width_of_ffn_mult(mult, hidden), width) << hidden;
    }
  }
  EXPECT_EQ(width_of_ffn_mult(5.25, 8192), 28672);
  EXPECT_EQ(width_of_ffn_mult(1.0, 8192), 5632);
  EXPECT_EQ(width_of_ffn_mult(0.5, 8192), 2816);
  EXPECT_EQ(width_of_ffn_mult(0.0, 8192), 0);
  EXPECT_EQ(width_of_ffn_mult(-1.0, 8192), 0);
  EXPECT_EQ(width_of_ffn_mult(1e300, 8192), 0);
  EXPECT_EQ(width_of_ffn_mult(std::nan(""), 8192), 0);
  EXPECT_PUZZLE_ERROR(static_cast<void>(ffn_mult_of(1000, 8192)), ErrorKind::kUsage, "1000");
}

struct BlockRefusal {
  const char* half;
  Json changes;
  const char* part;
};

TEST(NemotronNas, BlocksThatMakeNoSenseAreRefusedByName) {
  const std::vector<BlockRefusal> refusals = {
      {"attention",
       {{"no_op", true}, {"replace_with_linear", true}},
       "c: block_configs[1].attention: both no_op and replace_with_linear"},
      {"attention", {{"n_heads_in_group", nullptr}}, "\"n_heads_in_group\" is missing"},
      {"attention", {{"n_heads_in_group", 3}}, "n_heads_in_group is 3, expected a divisor"},
      {"attention", {{"n_heads_in_group", 0}}, "n_heads_in_group is 0"},
      {"attention", {{"window_length", 8192}}, "window_length is not supported"},
      {"attention", {{"num_sink_tokens", 4}}, "num_sink_tokens is not supported"},
      {"attention", {{"sparsify", {"q_proj"}}}, "sparsify is not supported"},
      {"ffn", {{"ffn_mult", nullptr}}, "neither ffn_mult nor intermediate_size"},
      {"ffn", {{"ffn_mult", -1.0}}, "ffn_mult is -1"},
      {"ffn", {{"ffn_mult", 1e30}}, "ffn_mult is 1e+30"},
      {"ffn",
       {{"intermediate_size", 96}},
       "ffn_mult 6 means width 256, but intermediate_size is 96"},
      {"ffn", {{"ffn_mult", nullptr}, {"intermediate_size", -4}}, "intermediate_size is -4"},
      {"ffn", {{"moe", {{"num_experts", 8}}}}, "moe is not supported"},
      {"ffn", {{"hidden_act", "relu2"}}, "hidden_act 'relu2'"},
      {"ffn", {{"no_op", 1}}, "\"no_op\" is 1, expected true or false"},
  };
  const Json good =
      make_nemotron_nas_config(small_spec(Architecture(2, parse_block("kv4/w256"))), "float32");
  for (const BlockRefusal& refusal : refusals) {
    Json config = good;
    config["block_configs"][1][refusal.half].update(refusal.changes);
    EXPECT_PUZZLE_ERROR(static_cast<void>(parse_hf_config(config, "c")), ErrorKind::kFormat,
                        refusal.part);
  }
  Json config = good;
  config["num_hidden_layers"] = 3;
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_hf_config(config, "c")), ErrorKind::kFormat,
                      "block_configs has 2 entries, expected num_hidden_layers = 3");
  config = good;
  config["block_configs"][0]["parallel_blocks"] = {{{"attention", 1}}};
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_hf_config(config, "c")), ErrorKind::kFormat,
                      "block_configs[0]: parallel_blocks is not supported");
  config = good;
  config["block_configs"][1].erase("ffn");
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_hf_config(config, "c")), ErrorKind::kFormat,
                      "block_configs[1]: \"ffn\" is missing");
}

}  // namespace
}  // namespace puzzle
