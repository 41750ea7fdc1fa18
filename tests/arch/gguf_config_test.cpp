#include "puzzle/arch/gguf_config.h"

#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "arch/hand_made_gguf.h"
#include "support/expect_error.h"
#include "support/shared_data.h"

namespace puzzle {
namespace {

using test::GgufConfig;
using test::HandMadeGguf;
using test::llama_file;
using test::parse_layers;
using test::qwen_file;
using test::small_spec;
using test::through_deci;

ModelSpec without_empty_layers(ModelSpec spec) {
  std::erase(spec.layers, parse_block("none/none"));
  return spec;
}

TEST_F(GgufConfig, ReadsLlama) {
  const ModelSpec spec = small_spec();
  EXPECT_EQ(read(llama_file(spec)), spec);
}

TEST_F(GgufConfig, ArraysOfOneValueAndDefaultsOfLlamaCpp) {
  const ModelSpec spec = small_spec();
  HandMadeGguf made = llama_file(spec);
  made.keys["llama.attention.head_count"] = std::vector<std::int32_t>{4, 4, 4};
  made.keys["llama.feed_forward_length"] = std::vector<std::uint32_t>{96, 96, 96};
  made.keys.erase("llama.attention.head_count_kv");  // = heads
  made.keys.erase("llama.vocab_size");               // = rows of the embedding
  made.keys.erase("llama.rope.dimension_count");     // = head width
  made.keys.erase("llama.rope.freq_base");           // = 10000
  made.keys.erase("general.name");                   // = the file's
  ModelSpec expected = spec;
  expected.name = "model";
  EXPECT_EQ(read(made), expected);
}

TEST_F(GgufConfig, ReadsQwen) {
  ModelSpec spec = small_spec();
  spec.head_dim = 32;
  spec.attention_bias = true;
  EXPECT_EQ(read(qwen_file(spec, "qwen2")), spec);
  EXPECT_FALSE(has_interleaved_rotary_rows(GgufFile(path_)));
  spec.attention_bias = false;
  spec.qk_norm = true;
  HandMadeGguf made = qwen_file(spec, "qwen3");
  EXPECT_PUZZLE_ERROR(static_cast<void>(read(made)), ErrorKind::kFormat,
                      "architecture qwen3 without attn_q_norm.weight");
  for (const char* layer : {"blk.0.", "blk.1.", "blk.2."}) {
    made.tensors.push_back({layer + std::string("attn_q_norm.weight"), {32}});
    made.tensors.push_back({layer + std::string("attn_k_norm.weight"), {32}});
  }
  EXPECT_EQ(read(made), spec);
  EXPECT_FALSE(has_interleaved_rotary_rows(GgufFile(path_)));
  made.tensors.pop_back();
  EXPECT_PUZZLE_ERROR(static_cast<void>(read(made)), ErrorKind::kFormat,
                      "but blk.2.attn_k_norm.weight is not");
  static_cast<void>(read(llama_file(small_spec())));
  EXPECT_TRUE(has_interleaved_rotary_rows(GgufFile(path_)));
}

TEST_F(GgufConfig, ASlidingWindowEndsTheContext) {
  HandMadeGguf made = llama_file(small_spec());
  made.keys["llama.attention.sliding_window"] = std::uint32_t{100};
  EXPECT_EQ(read(made).context_length, 100);
  EXPECT_EQ(read(made).context_limit,
            "beyond it attention would slide a window, which this program lacks (the file says 128 "
            "tokens)");
  made.keys["llama.attention.sliding_window"] = std::uint32_t{128};
  EXPECT_EQ(read(made), small_spec());
}

TEST_F(GgufConfig, TiedHeadsBiasesAndTokens) {
  ModelSpec spec = small_spec();
  spec.tie_embeddings = true;
  spec.attention_bias = true;
  spec.mlp_bias = true;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  HandMadeGguf made = llama_file(spec);
  made.keys["tokenizer.ggml.bos_token_id"] = std::uint32_t{1};
  made.keys["tokenizer.ggml.eos_token_id"] = std::uint32_t{2};
  made.keys["tokenizer.ggml.eot_token_id"] = std::uint32_t{2};  // the same one again
  EXPECT_EQ(read(made), spec);
  made.keys["tokenizer.ggml.eot_token_id"] = std::uint32_t{3};
  EXPECT_EQ(read(made).eos_tokens, (std::vector<std::int64_t>{2, 3}));
}

TEST_F(GgufConfig, EveryBlockComesBackThroughDeci) {
  for (const DType matrix : {DType::kF32, DType::kQ8_0}) {
    for (const BlockSpec& block : test::all_small_blocks()) {
      const BlockSpec anchor = parse_block("kv2/w96");
      const BlockSpec empty = parse_block("none/none");
      for (const Architecture& layers : {Architecture{block, anchor}, Architecture{anchor, block},
                                         Architecture{empty, block, anchor}}) {
        const ModelSpec spec = small_spec(layers);
        EXPECT_EQ(through_deci(spec, matrix, path_), without_empty_layers(spec)) << block.name();
      }
    }
  }
}

TEST_F(GgufConfig, OtherTypesAndBiasesComeBackThroughDeci) {
  ModelSpec spec = small_spec(parse_layers(
      {"none/linear", "none/none", "kv4/w64", "linear/none", "kv1/linear", "none/w32"}));
  spec.head_dim = 32;
  spec.tie_embeddings = true;
  spec.bos_token = 5;
  spec.eos_tokens = {6, 7};
  spec.rms_norm_eps = 1e-6;
  for (const DType matrix :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    EXPECT_EQ(through_deci(spec, matrix, path_), without_empty_layers(spec)) << dtype_name(matrix);
  }
  spec.attention_bias = true;
  spec.mlp_bias = true;
  EXPECT_EQ(through_deci(spec, DType::kF32, path_), without_empty_layers(spec));
  spec.attention_output_bias = true;
  EXPECT_EQ(through_deci(spec, DType::kF32, path_), without_empty_layers(spec));
}

TEST_F(GgufConfig, EveryRopeComesBackThroughDeci) {
  ModelSpec spec = small_spec();
  const auto expect_same = [&](const RopeSpec& rope) {
    spec.rope = rope;
    EXPECT_EQ(through_deci(spec, DType::kF32, path_), spec) << rope_kind_name(rope.kind);
  };
  expect_same({.theta = 500000.0});
  expect_same({.kind = RopeKind::kLinear, .factor = 2.5});
  expect_same({.kind = RopeKind::kYarn, .factor = 4.0, .original_context = 32});
  spec.rope = {
      .kind = RopeKind::kYarn, .factor = 4.0, .original_context = 32, .attention_factor = 1.5};
  EXPECT_NEAR(through_deci(spec, DType::kF32, path_).rope.attention_factor, 1.5, 1e-6);
}

TEST_F(GgufConfig, TheDecoderGetsExactlyTheDivisorsOfTheFile) {
  // Usual settings: found again, and the tensor's numbers kept beside them.
  ModelSpec spec = small_spec();
  spec.rope = {
      .kind = RopeKind::kLlama3, .theta = 500000.0, .factor = 32.0, .original_context = 8192};
  const std::vector<float> divisors = llama3_frequency_divisors(spec.rope, spec.head_dim);
  ModelSpec expected = spec;
  expected.rope.frequency_divisors = divisors;
  EXPECT_EQ(through_deci(spec, DType::kF32, path_), expected);
  // Numbers that no settings give.
  HandMadeGguf made = llama_file(small_spec());
  made.tensors.push_back({"rope_freqs.weight", {8}});
  made.values["rope_freqs.weight"] = {1, 1.5F, 1.25F, 7, 2, 3, 4, 5};
  const RopeSpec rope = read(made).rope;
  EXPECT_EQ(rope.kind, RopeKind::kLlama3);
  EXPECT_EQ(rope.original_context, 0);
  EXPECT_EQ(rope.frequency_divisors, made.values["rope_freqs.weight"]);
  EXPECT_EQ(llama3_frequency_divisors(rope, 16), made.values["rope_freqs.weight"]);
}

TEST(Llama3Rope, DivisorsByHand) {
  // theta = 1 makes every wavelength 2 pi; orig chosen so that each rule applies.
  RopeSpec rope{.kind = RopeKind::kLlama3, .theta = 1.0, .factor = 8.0, .original_context = 1000};
  EXPECT_EQ(llama3_frequency_divisors(rope, 4), (std::vector<float>{1.0F, 1.0F}));
  rope.original_context = 5;  // 2 pi > 5 / 1
  EXPECT_EQ(llama3_frequency_divisors(rope, 4), (std::vector<float>{8.0F, 8.0F}));
  rope.original_context = 12;  // between 12 / 4 and 12 / 1
  const double smooth = (12.0 / (2.0 * M_PI) - 1.0) / 3.0;
  EXPECT_FLOAT_EQ(llama3_frequency_divisors(rope, 4)[0],
                  static_cast<float>(1.0 / ((1.0 - smooth) / 8.0 + smooth)));
}

TEST_F(GgufConfig, RopeKeysOfForeignFiles) {
  HandMadeGguf made = llama_file(small_spec());
  made.keys["llama.rope.scale_linear"] = 4.0F;
  EXPECT_EQ(read(made).rope, (RopeSpec{.kind = RopeKind::kLinear, .factor = 4.0}));
  made.keys["llama.rope.scaling.factor"] = 2.0F;  // newer key, no type: linear
  EXPECT_EQ(read(made).rope, (RopeSpec{.kind = RopeKind::kLinear, .factor = 2.0}));
  made.keys["llama.rope.scaling.type"] = std::string("none");
  EXPECT_EQ(read(made).rope, RopeSpec{});
  made.keys["llama.rope.scaling.type"] = std::string("yarn");
  made.keys["llama.rope.scaling.yarn_beta_fast"] = 16.0F;
  EXPECT_EQ(
      read(made).rope,
      (RopeSpec{
          .kind = RopeKind::kYarn, .factor = 2.0, .original_context = 128, .beta_fast = 16.0}));
}

// Almost rewrites, which must stay what their shapes say.
TEST_F(GgufConfig, AnythingLessThanExactIsNoRewrite) {
  const ModelSpec linear = small_spec(parse_layers({"kv2/linear", "kv2/linear"}));
  HandMadeGguf made = llama_file(small_spec());
  made.tensors = test::naive_deci_tensors(linear);
  made.keys["general.architecture"] = std::string("deci");
  for (auto& [key, value] : std::map(made.keys)) {
    if (key.starts_with("llama.")) {
      made.keys["deci." + key.substr(6)] = value;
      made.keys.erase(key);
    }
  }
  made.keys["deci.block_count"] = std::uint32_t{2};
  made.keys["deci.attention.head_count_kv"] = std::vector<std::int32_t>{2, 2};
  made.keys["deci.feed_forward_length"] = std::vector<std::int32_t>{64, 64};
  EXPECT_EQ(read(made), linear);
  std::vector<float> diagonal(64 * 64, 0.0F);
  for (std::size_t i = 0; i < 64; ++i) {
    diagonal[i * 65] = 1.0F / 32.0F;
  }
  made.values["blk.1.ffn_down.weight"] = diagonal;
  EXPECT_EQ(read(made), linear);
  const auto expect_plain = [&](const std::string& tensor, std::vector<float> changed) {
    HandMadeGguf almost = made;
    almost.values[tensor] = std::move(changed);
    // Layer 1 is then a SwiGLU with a gate bias alone, which no ModelSpec holds.
    EXPECT_PUZZLE_ERROR(static_cast<void>(read(almost)), ErrorKind::kFormat,
                        "tensor blk.1.ffn_gate.bias is there, but blk.1.ffn_down.bias is not");
  };
  std::vector<float> changed = diagonal;
  changed[63 * 64 + 62] = 1e-6F;
  expect_plain("blk.1.ffn_down.weight", changed);
  changed = diagonal;
  changed[65] = 0.03F;
  expect_plain("blk.1.ffn_down.weight", changed);
  changed.assign(64 * 64, 0.0F);
  changed.back() = 1e-6F;
  expect_plain("blk.1.ffn_gate.weight", changed);
  changed.assign(64, 32.0F);
  changed[5] = 31.0F;
  expect_plain("blk.1.ffn_gate.bias", changed);
  expect_plain("blk.1.ffn_gate.bias", std::vector<float>(64, 33.0F));
}

TEST(RealParent, ReadsSmolLm2) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const ModelSpec spec = read_gguf_config(GgufFile(test::parent_gguf()));
  EXPECT_EQ(spec.hidden_size, 576);
  EXPECT_EQ(spec.num_heads, 9);
  EXPECT_EQ(spec.head_dim, 64);
  EXPECT_EQ(spec.vocab_size, 49152);
  EXPECT_EQ(spec.context_length, 8192);
  EXPECT_EQ(spec.rms_norm_eps, 1e-5);
  EXPECT_TRUE(spec.tie_embeddings);
  EXPECT_FALSE(spec.attention_bias || spec.attention_output_bias || spec.mlp_bias);
  EXPECT_EQ(spec.rope, RopeSpec{.theta = 100000.0});
  EXPECT_EQ(spec.layers, Architecture(30, parse_block("kv3/w1536")));
  EXPECT_EQ(spec.eos_tokens, std::vector<std::int64_t>{2});
}

}  // namespace
}  // namespace puzzle
