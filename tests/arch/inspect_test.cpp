#include "puzzle/arch/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "arch/naive_tensors.h"
#include "puzzle/arch/gguf_config.h"
#include "support/shared_data.h"

namespace puzzle {
namespace {

using test::small_spec;
using ::testing::HasSubstr;

TEST(Inspect, PartsOfSpecAndOfTensorsAgree) {
  ModelSpec spec = small_spec(test::all_small_blocks());
  spec.attention_bias = true;
  spec.mlp_bias = true;
  for (const bool tied : {false, true}) {
    spec.tie_embeddings = tied;
    const std::vector<std::byte> storage(1 << 20);
    for (const bool deci : {false, true}) {
      spec.qk_norm = !deci;
      std::vector<StoredTensor> tensors;
      for (const test::NaiveTensor& naive :
           deci ? test::naive_deci_tensors(spec) : test::naive_hf_tensors(spec)) {
        StoredTensor tensor;
        tensor.name = naive.name;
        tensor.shape = naive.shape;
        tensor.bytes = std::span(storage).first(static_cast<std::size_t>(4 * naive.elements()));
        tensors.push_back(tensor);
      }
      const ExportTarget target = deci ? ExportTarget::kDeci : ExportTarget::kNative;
      EXPECT_EQ(part_sizes(tensors), part_sizes(spec, target, {}));
    }
  }
}

TEST(Inspect, PartsAddUpToTheModelsCost) {
  ModelSpec spec = small_spec(test::all_small_blocks());
  spec.rope = {.kind = RopeKind::kLlama3, .factor = 8.0, .original_context = 64};
  const WeightTypes types{.matrix = DType::kQ4_1, .embedding = DType::kQ8_0};
  for (const ExportTarget target : {ExportTarget::kNative, ExportTarget::kDeci}) {
    PartCost sum;
    for (const PartSize& part : part_sizes(spec, target, types)) {
      sum.parameters += part.parameters;
      sum.weight_bytes += part.bytes;
    }
    const PartCost cost = model_cost(spec, target, types);
    EXPECT_EQ(sum.parameters, cost.parameters);
    EXPECT_EQ(sum.weight_bytes, cost.weight_bytes);
  }
}

TEST(Inspect, TextOfASmallModel) {
  ModelSpec spec = small_spec(test::parse_layers({"kv4/w96", "kv4/w96", "linear/none"}));
  spec.mlp_bias = true;
  spec.rope = {.kind = RopeKind::kLinear, .factor = 4.0};
  const std::string expected =
      "small (llama)\n"
      "  hidden size  64\n"
      "  heads        4 of width 16\n"
      "  vocabulary   96, head of its own\n"
      "  context      128 tokens\n"
      "  rotary       linear, base 10000, factor 4\n"
      "  norm epsilon 1e-05\n"
      "  biases       gate, up, down\n"
      "  KV cache     512 B per token in F16\n"
      "3 layers\n"
      "  0-1          kv4/w96\n"
      "  2            linear/none\n"
      "part                parameters           bytes  types\n"
      "  embedding               6144           24576  F32\n"
      "  attention              36864          147456  F32\n"
      "  ffn                    37376          149504  F32\n"
      "  norms                    384            1536  F32\n"
      "  head                    6144           24576  F32\n"
      "  total                  86912          347648  86.91 k parameters, 339.5 KiB\n";
  EXPECT_EQ(describe(spec, part_sizes(spec, ExportTarget::kNative, {})), expected);
}

TEST(Inspect, JsonOfASmallModel) {
  const ModelSpec spec = small_spec(test::parse_layers({"kv4/w96", "kv4/w96", "none/none"}));
  const nlohmann::json json =
      describe_json(spec, part_sizes(spec, ExportTarget::kNative, {.matrix = DType::kF16}));
  EXPECT_EQ(json.at("num_layers"), 3);
  EXPECT_EQ(json.at("layers").dump(),
            R"([{"block":"kv4/w96","first":0,"last":1},{"block":"none/none","first":2,"last":2}])");
  EXPECT_EQ(json.at("parameters"), test::total_elements(test::naive_hf_tensors(spec)));
  EXPECT_EQ(json.at("kv_bytes_per_token_f16"), 2 * 2 * 64 * 2);
  EXPECT_EQ(json.at("parts").at(1).at("part"), "attention");
  EXPECT_EQ(json.at("parts").at(1).at("types"), nlohmann::json({"F16"}));
}

TEST(Inspect, TheRealParent) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  const ModelSpec spec = read_gguf_config(file);
  const std::vector<PartSize> parts = part_sizes(file.tensors());
  EXPECT_EQ(parts, part_sizes(spec, ExportTarget::kNative,
                              {.matrix = DType::kQ4_1, .embedding = DType::kQ8_0}));
  const std::string text = describe(spec, parts);
  EXPECT_THAT(text, HasSubstr("0-29         kv3/w1536"));
  EXPECT_THAT(text, HasSubstr("134515008"));
  EXPECT_THAT(text, HasSubstr("134.5 M parameters"));
}

}  // namespace
}  // namespace puzzle
