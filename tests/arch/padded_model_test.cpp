#include "puzzle/arch/padded_model.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "arch/naive_tensors.h"
#include "puzzle/arch/cost.h"
#include "puzzle/arch/hf_config.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::parse_layers;
using test::small_spec;

TEST(PaddedModel, AllLayersBecomeTheWidest) {
  const ModelSpec spec =
      small_spec(parse_layers({"kv2/w50", "none/w96", "kv4/none", "none/none", "kv1/w32"}));
  const ModelSpec plain = padded_spec(spec);
  EXPECT_EQ(plain.layers, Architecture(4, parse_block("kv4/w96")));
  EXPECT_FALSE(plain.mlp_bias);
  const std::vector<LoweredBlock> lowered = lower_model(ExportTarget::kPadded, spec);
  EXPECT_EQ(lowered[0], (LoweredBlock{AttentionSpec::gqa(4), FfnSpec::swiglu(96)}));
  EXPECT_TRUE(lowered[1].zero_attention && !lowered[1].zero_ffn);
  EXPECT_TRUE(lowered[2].zero_ffn && !lowered[2].zero_attention);
  EXPECT_TRUE(lowered[3].dropped);
}

TEST(PaddedModel, WhatIsLinearNeedsBiasesAndForAttentionALayer) {
  ModelSpec spec = small_spec(parse_layers({"linear/w50", "linear/none", "kv2/linear"}));
  const std::vector<LoweredBlock> lowered = lower_model(ExportTarget::kPadded, spec);
  EXPECT_TRUE(lowered[0].linear_attention_as_ffn && lowered[0].inserted_layer);
  EXPECT_TRUE(lowered[1].linear_attention_as_ffn && !lowered[1].inserted_layer);
  EXPECT_TRUE(lowered[2].linear_ffn_as_swiglu && !lowered[2].linear_attention_as_ffn);
  ModelSpec plain = padded_spec(spec);
  EXPECT_EQ(plain.layers, Architecture(4, parse_block("kv2/w64")));  // 64 is the hidden size
  EXPECT_TRUE(plain.mlp_bias);
  spec.attention_bias = true;  // Qwen2's, which has no biases in the FFN: Llama's with a zero on o
  plain = padded_spec(spec);
  EXPECT_TRUE(plain.attention_bias && plain.attention_output_bias);
  spec.layers = parse_layers({"kv2/w50"});
  EXPECT_FALSE(padded_spec(spec).attention_output_bias);
}

TEST(PaddedModel, KvHeadsMeetAtTheirLeastCommonMultiple) {
  ModelSpec spec = small_spec(parse_layers({"kv3/w32", "kv2/w32"}));
  spec.num_heads = 12;
  EXPECT_EQ(padded_spec(spec).layers.front(), parse_block("kv6/w32"));
  spec.layers = parse_layers({"none/w32"});
  EXPECT_EQ(padded_spec(spec).layers.front(), parse_block("kv1/w32"));
}

TEST(PaddedModel, CostsWhatItHolds) {
  const ModelSpec spec = small_spec(parse_layers({"linear/w50", "kv2/none"}));
  EXPECT_EQ(model_cost(spec, ExportTarget::kPadded, {}).parameters,
            test::total_elements(test::naive_hf_tensors(padded_spec(spec))));
  EXPECT_PUZZLE_ERROR(
      static_cast<void>(block_cost(spec, 0, spec.layers[0], ExportTarget::kPadded, {})),
      ErrorKind::kUsage, "its size is that of all layers together");
}

TEST(PaddedModel, ConfigIsOfAPlainClassAndReadsBack) {
  ModelSpec spec = small_spec(parse_layers({"kv2/w50", "none/w96"}));
  spec.eos_tokens = {2};
  const ModelSpec plain = padded_spec(spec);
  const nlohmann::json config = make_plain_config(plain, "bfloat16", "mistral");
  EXPECT_EQ(config.at("architectures"), nlohmann::json({"MistralForCausalLM"}));
  EXPECT_TRUE(config.at("sliding_window").is_null());
  EXPECT_FALSE(config.contains("auto_map") || config.contains("block_configs"));
  EXPECT_EQ(parse_hf_config(config, "again"), plain);
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_plain_config(spec, "float32", "")), ErrorKind::kUsage,
                      "the layers differ");
}

TEST(AnyModelConfig, HasEveryKeyOfPuzzletronAndReadsBack) {
  ModelSpec spec = small_spec(parse_layers({"kv2/w50", "none/w96", "kv4/none"}));
  spec.eos_tokens = {2};
  const nlohmann::json config = make_any_model_config(spec, "bfloat16", "");
  EXPECT_EQ(config.at("architectures"), nlohmann::json({"AnyModel"}));
  EXPECT_EQ(config.at("base_architecture"), "LlamaForCausalLM");
  EXPECT_EQ(config.at("model_type"), "llama");
  EXPECT_EQ(config.at("num_key_value_heads"), 4);
  EXPECT_EQ(config.at("intermediate_size"), 96);
  // docs/formats.md
  EXPECT_EQ(config.at("block_configs").at(0), nlohmann::json::parse(R"({
      "attention": {"no_op": false, "replace_with_linear": false, "sparsify": null,
                    "weights_precision": "bf16", "num_key_value_heads": 2,
                    "llama4": null, "mamba": null},
      "ffn": {"no_op": false, "replace_with_linear": false, "sparsify": null,
              "weights_precision": "bf16", "moe": null, "intermediate_size": 50},
      "parallel_blocks": null})"));
  EXPECT_TRUE(config.at("block_configs").at(1).at("attention").at("no_op"));
  EXPECT_TRUE(config.at("block_configs").at(1).at("attention").at("num_key_value_heads").is_null());
  EXPECT_TRUE(config.at("block_configs").at(2).at("ffn").at("intermediate_size").is_null());
  EXPECT_EQ(parse_hf_config(config, "again"), spec);
  spec.layers[1] = parse_block("kv4/linear");
  EXPECT_PUZZLE_ERROR(static_cast<void>(make_any_model_config(spec, "bfloat16", "")),
                      ErrorKind::kUsage, "layer 1: a linear sub-block");
}

}  // namespace
}  // namespace puzzle
