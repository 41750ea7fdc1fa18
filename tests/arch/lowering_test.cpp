#include "puzzle/arch/lowering.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/formats/gguf_quant.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::parse_layers;
using test::small_spec;

LoweredBlock deci(std::int64_t layer, const char* block) {
  return lower_block(ExportTarget::kDeci, small_spec(), layer, parse_block(block));
}

LoweredBlock written_as(const char* block) {
  const BlockSpec shape = parse_block(block);
  return {shape.attention, shape.ffn};
}

TEST(Lowering, TargetsHaveNames) {
  for (const char* name : {"native", "deci", "nemotron-nas", "padded", "anymodel"}) {
    EXPECT_EQ(export_target_name(parse_export_target(name)), name);
  }
  for (const ExportTarget target : all_export_targets()) {
    EXPECT_EQ(parse_export_target(export_target_name(target)), target);
  }
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_export_target("gguf")), ErrorKind::kUsage,
                      "expected one of native, deci, ");
}

TEST(Lowering, SomeTargetsRewriteNothing) {
  for (const ExportTarget target : {ExportTarget::kNative, ExportTarget::kNemotronNas}) {
    for (const std::int64_t layer : {0, 1}) {
      for (const BlockSpec& block : test::all_small_blocks()) {
        EXPECT_EQ(lower_block(target, small_spec(), layer, block),
                  (LoweredBlock{block.attention, block.ffn}));
      }
    }
  }
}

TEST(Lowering, DeciRules) {
  // As it is: any layer with both parts, attention left out behind the first layer.
  EXPECT_EQ(deci(0, "kv2/w50"), written_as("kv2/w50"));
  EXPECT_EQ(deci(0, "linear/w96"), written_as("linear/w96"));
  EXPECT_EQ(deci(1, "none/w96"), written_as("none/w96"));

  LoweredBlock dropped = written_as("none/none");
  dropped.dropped = true;
  EXPECT_EQ(deci(0, "none/none"), dropped);
  EXPECT_EQ(deci(5, "none/none"), dropped);

  LoweredBlock zero_ffn = written_as("kv2/w32");
  zero_ffn.zero_ffn = true;
  EXPECT_EQ(deci(3, "kv2/none"), zero_ffn);
  zero_ffn.attention = AttentionSpec::linear();
  EXPECT_EQ(deci(0, "linear/none"), zero_ffn);

  LoweredBlock first = written_as("linear/w96");
  first.zero_attention = true;
  EXPECT_EQ(deci(0, "none/w96"), first);

  LoweredBlock linear_ffn = written_as("none/w64");
  linear_ffn.linear_ffn_as_swiglu = true;
  EXPECT_EQ(deci(1, "none/linear"), linear_ffn);
  linear_ffn.attention = AttentionSpec::linear();
  linear_ffn.zero_attention = true;
  EXPECT_EQ(deci(0, "none/linear"), linear_ffn);
}

TEST(Lowering, LayersAreCountedWithoutDroppedOnes) {
  // The first layer kept is number 2 of the model: it needs the zero attention.
  const ModelSpec spec = small_spec(
      parse_layers({"none/none", "none/none", "none/w96", "none/w96", "kv1/none", "none/none"}));
  const std::vector<LoweredBlock> lowered = lower_model(ExportTarget::kDeci, spec);
  ASSERT_EQ(lowered.size(), 6U);
  EXPECT_TRUE(lowered[0].dropped && lowered[1].dropped && lowered[5].dropped);
  EXPECT_TRUE(lowered[2].zero_attention);
  EXPECT_FALSE(lowered[3].zero_attention);
  EXPECT_EQ(lowered[3].attention, AttentionSpec::none());
  EXPECT_TRUE(lowered[4].zero_ffn);
}

TEST(Lowering, NoDeciFileTripsLlamaCpp) {
  // docs/formats.md: what it computes wrongly, aborts on or cannot load.
  const Architecture blocks = test::all_small_blocks();
  for (const BlockSpec& first : blocks) {
    for (const BlockSpec& second : blocks) {
      const ModelSpec spec = small_spec({first, second});
      if (refusal(ExportTarget::kDeci, spec)) {
        continue;
      }
      bool is_first = true;
      for (const LoweredBlock& block : lower_model(ExportTarget::kDeci, spec)) {
        if (block.dropped) {
          continue;
        }
        EXPECT_EQ(block.ffn.kind, FfnKind::kSwiglu);
        EXPECT_TRUE(!is_first || block.attention.kind != AttentionKind::kNone);
        is_first = false;
      }
      EXPECT_FALSE(is_first);
    }
  }
}

TEST(Lowering, OpenElmHasBothHalvesInEveryLayer) {
  ModelSpec spec =
      small_spec(parse_layers({"none/w96", "none/none", "kv2/none", "none/w50", "kv4/w96"}));
  spec.qk_norm = spec.tie_embeddings = true;
  EXPECT_EQ(refusal(ExportTarget::kOpenElm, spec), std::nullopt);
  const std::vector<LoweredBlock> lowered = lower_model(ExportTarget::kOpenElm, spec);
  LoweredBlock zero_head = written_as("kv1/w96");
  zero_head.zero_attention = zero_head.one_zero_head = true;
  EXPECT_EQ(lowered[0], zero_head);
  zero_head.ffn = FfnSpec::swiglu(50);
  EXPECT_EQ(lowered[3], zero_head);
  EXPECT_TRUE(lowered[1].dropped);
  LoweredBlock zero_ffn = written_as("kv2/w32");
  zero_ffn.zero_ffn = true;
  EXPECT_EQ(lowered[2], zero_ffn);
  EXPECT_EQ(lowered[4], written_as("kv4/w96"));
  EXPECT_TRUE(needs_gqa_layer(ExportTarget::kOpenElm));
  EXPECT_THAT(refusal(ExportTarget::kOpenElm, spec, parse_block("kv2/linear")).value_or(""),
              ::testing::HasSubstr("a linear sub-block"));
  spec.mlp_bias = true;
  EXPECT_THAT(refusal(ExportTarget::kOpenElm, spec).value_or(""),
              ::testing::HasSubstr("it has biases"));
}

TEST(Lowering, RefusalsSayWhy) {
  const auto reason = [](ExportTarget target, const ModelSpec& spec) {
    return refusal(target, spec).value_or("");
  };
  ModelSpec spec = small_spec(parse_layers({"linear/w96", "none/w96"}));
  EXPECT_THAT(reason(ExportTarget::kDeci, spec), ::testing::HasSubstr("no layer has GQA"));
  EXPECT_EQ(reason(ExportTarget::kNative, spec), "");
  EXPECT_EQ(reason(ExportTarget::kNemotronNas, spec), "");
  EXPECT_TRUE(needs_gqa_layer(ExportTarget::kDeci));
  EXPECT_FALSE(needs_gqa_layer(ExportTarget::kNative));
  EXPECT_FALSE(needs_gqa_layer(ExportTarget::kNemotronNas));

  spec = small_spec(Architecture(513, parse_block("kv4/w96")));
  EXPECT_THAT(reason(ExportTarget::kDeci, spec), ::testing::HasSubstr("513 layers"));
  spec.layers[7] = parse_block("none/none");
  EXPECT_EQ(reason(ExportTarget::kDeci, spec), "");

  spec = small_spec();
  spec.rope = {.kind = RopeKind::kYarn, .factor = 4.0, .original_context = 32};
  EXPECT_EQ(reason(ExportTarget::kDeci, spec), "");
  spec.rope.truncate = false;
  EXPECT_THAT(reason(ExportTarget::kDeci, spec), ::testing::HasSubstr("truncate"));
  spec.rope.truncate = true;
  spec.rope.beta_fast = 16.0;
  EXPECT_THAT(reason(ExportTarget::kDeci, spec), ::testing::HasSubstr("beta_fast 16"));
  EXPECT_EQ(reason(ExportTarget::kNemotronNas, spec), "");

  spec = small_spec();
  spec.qk_norm = true;
  EXPECT_THAT(reason(ExportTarget::kDeci, spec), ::testing::HasSubstr("norms (Qwen3)"));
  EXPECT_EQ(reason(ExportTarget::kNemotronNas, spec), "");
  EXPECT_EQ(reason(ExportTarget::kNative, spec), "");

  spec = small_spec(parse_layers({"kv4/w96", "kv3/w96"}));
  EXPECT_EQ(reason(ExportTarget::kNative, spec), "layer 1: 3 KV heads do not divide the 4 heads");
  EXPECT_PUZZLE_ERROR(static_cast<void>(lower_model(ExportTarget::kDeci, spec)), ErrorKind::kUsage,
                      "deci: block kv3/w96: 3 KV heads");
}

TEST(Lowering, ClassesOfTransformersRefuseWhatTheyLack) {
  const auto reason = [](ExportTarget target, const ModelSpec& spec) {
    return refusal(target, spec).value_or("");
  };
  ModelSpec spec = small_spec(parse_layers({"kv4/w96", "kv2/linear"}));
  EXPECT_EQ(reason(ExportTarget::kAnyModel, spec),
            "layer 1: a linear sub-block, which no reader of block_configs has");
  EXPECT_EQ(reason(ExportTarget::kPadded, spec), "");
  spec.qk_norm = true;
  EXPECT_THAT(reason(ExportTarget::kPadded, spec),
              ::testing::HasSubstr("layer 1: a linear sub-block needs a bias in the FFN"));
  spec.layers[1] = parse_block("none/none");
  EXPECT_EQ(reason(ExportTarget::kPadded, spec), "");
  EXPECT_EQ(reason(ExportTarget::kAnyModel, spec), "");
  spec.mlp_bias = true;  // Qwen3's class has no such biases
  for (const ExportTarget target : {ExportTarget::kPadded, ExportTarget::kAnyModel}) {
    EXPECT_THAT(reason(target, spec), ::testing::HasSubstr("no class of transformers"));
  }
  spec = small_spec();
  spec.attention_output_bias = true;  // without one on q, k and v: padded adds them as zeros
  EXPECT_EQ(reason(ExportTarget::kPadded, spec), "");
  EXPECT_THAT(reason(ExportTarget::kAnyModel, spec),
              ::testing::HasSubstr("no class of transformers"));
  spec = small_spec(parse_layers({"none/none"}));
  EXPECT_EQ(reason(ExportTarget::kPadded, spec), "no layer has a sub-block");
  spec = small_spec();
  spec.rope.kind = RopeKind::kLlama3;
  spec.rope.frequency_divisors.assign(8, 2.0F);
  EXPECT_THAT(reason(ExportTarget::kPadded, spec), ::testing::HasSubstr("rope_freqs.weight"));
  EXPECT_EQ(reason(ExportTarget::kNemotronNas, spec), "");
}

TEST(Lowering, PortabilityNotesNameWhatReadersLack) {
  const auto notes = [](const std::vector<std::string>& names) {
    return portability_notes(ExportTarget::kNemotronNas, small_spec(parse_layers(names)));
  };
  EXPECT_THAT(notes({"kv4/w256", "none/w512", "kv1/none"}), ::testing::IsEmpty());
  EXPECT_THAT(notes({"kv4/w96"}), ::testing::ElementsAre(::testing::HasSubstr("multiple of 256")));
  EXPECT_THAT(notes({"linear/w256"}),
              ::testing::ElementsAre(::testing::HasSubstr("linear attention")));
  EXPECT_THAT(notes({"kv4/linear"}), ::testing::ElementsAre(::testing::HasSubstr("linear FFNs")));
  EXPECT_THAT(notes({"none/w256", "kv4/w256"}),
              ::testing::ElementsAre(::testing::HasSubstr("first layer")));
  EXPECT_THAT(notes({"none/none", "kv4/w256"}), ::testing::IsEmpty());
  EXPECT_THAT(portability_notes(ExportTarget::kDeci, small_spec()), ::testing::IsEmpty());
  ModelSpec spec = small_spec(parse_layers({"kv4/w256"}));
  spec.qk_norm = true;
  EXPECT_THAT(portability_notes(ExportTarget::kNemotronNas, spec),
              ::testing::ElementsAre(::testing::HasSubstr("norms of q and k")));
}

TEST(Lowering, TheLinearFfnIsExactInEveryTypeWritten) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ5_0,
                            DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ6_K}) {
    const LinearFfnForm form = linear_ffn_form(dtype);
    // One row of the down projection: the diagonal's element among zeros.
    for (const std::size_t column : {0U, 17U, 263U}) {
      std::vector<float> row(512, 0.0F);
      row[column] = form.down_diagonal;
      std::vector<std::byte> bytes;
      quantize(dtype, row, 512, bytes);
      std::vector<float> back(512, -1.0F);
      dequantize(dtype, bytes, back);
      EXPECT_EQ(back, row) << dtype_name(dtype);
    }
    const double bias = form.gate_bias;
    const double silu = bias / (1.0 + std::exp(-bias));
    EXPECT_NEAR(silu * form.down_diagonal, 1.0, 1e-7) << dtype_name(dtype);
  }
}

}  // namespace
}  // namespace puzzle
