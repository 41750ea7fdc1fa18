#include "puzzle/arch/gguf_config.h"

#include <cmath>
#include <functional>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/arch/lowering.h"
#include "puzzle/formats/gguf_quant.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::Fill;
using test::NaiveTensor;
using test::parse_layers;
using test::small_spec;

// A GGUF file put together by hand: keys and tensors that a test may change before writing.
struct HandMadeGguf {
  std::map<std::string, GgufValue> keys;
  std::vector<NaiveTensor> tensors;
  DType matrix = DType::kF32;
  std::map<std::string, std::vector<float>> values;  // in place of the fill

  std::vector<float> fill(const NaiveTensor& tensor) const {
    const auto given = values.find(tensor.name);
    if (given != values.end()) {
      return given->second;
    }
    std::vector<float> data(static_cast<std::size_t>(tensor.elements()), 0.0F);
    const LinearFfnForm form = linear_ffn_form(matrix);
    switch (tensor.fill) {
      case Fill::kZero:
        break;
      case Fill::kOne:
        std::fill(data.begin(), data.end(), 1.0F);
        break;
      case Fill::kGateBias:
        std::fill(data.begin(), data.end(), form.gate_bias);
        break;
      case Fill::kDiagonal:
        for (std::size_t i = 0; i < data.size();
             i += static_cast<std::size_t>(tensor.shape[1]) + 1) {
          data[i] = form.down_diagonal;
        }
        break;
      case Fill::kRandom: {
        std::mt19937 random(7);
        for (float& value : data) {
          value = static_cast<float>(random() % 2000) / 1000.0F - 1.0F;
        }
        break;
      }
    }
    return data;
  }

  void write(const std::filesystem::path& path, GgufWriter& writer) const {
    for (const auto& [key, value] : keys) {
      writer.add_value(key, value);
    }
    for (const NaiveTensor& tensor : tensors) {
      TensorToWrite entry;
      entry.name = tensor.name;
      entry.dtype = tensor.shape.size() == 1 ? DType::kF32 : matrix;
      if (tensor.shape.size() == 2 && tensor.shape[1] % 32 != 0 && is_quantized(matrix)) {
        entry.dtype = DType::kF16;
      }
      entry.shape = tensor.shape;
      std::vector<std::byte> bytes;
      quantize(entry.dtype, fill(tensor), tensor.shape.back(), bytes);
      entry.produce = [bytes](const ByteSink& sink) { sink(bytes); };
      writer.add_tensor(std::move(entry));
    }
    writer.write(path);
  }
  void write(const std::filesystem::path& path) const {
    GgufWriter writer;
    write(path, writer);
  }
};

class GgufConfig : public ::testing::Test {
 protected:
  ModelSpec read(const HandMadeGguf& made) {
    made.write(path_);
    return read_gguf_config(GgufFile(path_));
  }

  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "model.gguf";
};

// Keys as llama.cpp's converter writes them for a small Llama.
HandMadeGguf llama_file(const ModelSpec& spec) {
  HandMadeGguf made;
  const auto u32 = [](std::int64_t value) { return GgufValue(static_cast<std::uint32_t>(value)); };
  made.keys = {{"general.architecture", std::string("llama")},
               {"general.name", std::string("small")},
               {"llama.block_count", u32(spec.num_layers())},
               {"llama.context_length", u32(spec.context_length)},
               {"llama.embedding_length", u32(spec.hidden_size)},
               {"llama.vocab_size", u32(spec.vocab_size)},
               {"llama.attention.head_count", u32(spec.num_heads)},
               {"llama.attention.head_count_kv", u32(spec.layers[0].attention.kv_heads)},
               {"llama.feed_forward_length", u32(spec.layers[0].ffn.width)},
               {"llama.attention.layer_norm_rms_epsilon", 1e-5F},
               {"llama.rope.dimension_count", u32(spec.head_dim)},
               {"llama.rope.freq_base", 10000.0F}};
  made.tensors = test::naive_deci_tensors(spec);
  return made;
}

// What our exporter writes, but with tensors listed and rewritten by hand.
ModelSpec through_deci(const ModelSpec& spec, DType matrix, const std::filesystem::path& path) {
  HandMadeGguf made;
  made.tensors = test::naive_deci_tensors(spec);
  made.matrix = matrix;
  GgufWriter writer;
  write_gguf_config(ExportTarget::kDeci, spec, matrix, writer);
  if (spec.bos_token >= 0) {
    writer.add_u32("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(spec.bos_token));
  }
  const std::vector<const char*> eos_keys = {"tokenizer.ggml.eos_token_id",
                                             "tokenizer.ggml.eot_token_id"};
  for (std::size_t i = 0; i < spec.eos_tokens.size(); ++i) {
    writer.add_u32(eos_keys[i], static_cast<std::uint32_t>(spec.eos_tokens[i]));
  }
  made.write(path, writer);
  return read_gguf_config(GgufFile(path));
}

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

// The same keys below another name.
HandMadeGguf qwen_file(const ModelSpec& spec, const std::string& architecture) {
  HandMadeGguf made = llama_file(spec);
  for (const auto& [key, value] : std::map(made.keys)) {
    if (key.starts_with("llama.")) {
      made.keys[architecture + key.substr(5)] = value;
      made.keys.erase(key);
    }
  }
  made.keys["general.architecture"] = architecture;
  made.keys.erase(architecture + ".rope.dimension_count");
  made.keys[architecture + ".attention.key_length"] = static_cast<std::uint32_t>(spec.head_dim);
  made.keys[architecture + ".attention.value_length"] = static_cast<std::uint32_t>(spec.head_dim);
  return made;
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

struct FileChange {
  const char* part;
  std::function<void(HandMadeGguf&)> apply;
};

void drop_tensor(HandMadeGguf& made, const std::string& name) {
  std::erase_if(made.tensors, [&](const NaiveTensor& tensor) { return tensor.name == name; });
}

TEST_F(GgufConfig, WhatThisProjectLacksIsRefusedByName) {
  const std::vector<FileChange> changes = {
      {"architecture 'gemma' is not supported, expected llama, deci, openelm, qwen2, qwen3",
       [](HandMadeGguf& f) { f.keys["general.architecture"] = std::string("gemma"); }},
      {"general.architecture", [](HandMadeGguf& f) { f.keys.erase("general.architecture"); }},
      {"llama.expert_count is 8",
       [](HandMadeGguf& f) { f.keys["llama.expert_count"] = std::uint32_t{8}; }},
      {"llama.attention.sliding_window is -1",
       [](HandMadeGguf& f) { f.keys["llama.attention.sliding_window"] = std::int32_t{-1}; }},
      {"llama.logit_scale is 0.25", [](HandMadeGguf& f) { f.keys["llama.logit_scale"] = 0.25F; }},
      {"tensor blk.0.attn_qkv.weight is not supported",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.0.attn_qkv.weight", {64, 64}}); }},
      {"tensor blk.0.attn_q_norm.weight is not supported",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.0.attn_q_norm.weight", {16}}); }},
      {"tensor blk.2.attn_k_norm.weight is not supported",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.2.attn_k_norm.weight", {16}}); }},
      {"tensor blk.3.attn_q.weight is not supported",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.3.attn_q.weight", {64, 64}}); }},
      {"tensor output.bias is not supported",
       [](HandMadeGguf& f) { f.tensors.push_back({"output.bias", {96}}); }},
      {"llama.rope.scaling.type is 'longrope', expected none, linear or yarn",
       [](HandMadeGguf& f) { f.keys["llama.rope.scaling.type"] = std::string("longrope"); }},
      {"llama.rope.scaling.attn_factor without yarn",
       [](HandMadeGguf& f) { f.keys["llama.rope.scaling.attn_factor"] = 1.1F; }},
      {"both rope_freqs.weight and linear scaling",
       [](HandMadeGguf& f) {
         f.keys["llama.rope.scaling.factor"] = 2.0F;
         f.tensors.push_back({"rope_freqs.weight", {8}, Fill::kOne});
       }},
      {"tensor rope_freqs.weight is F32 [4], expected F32 [8]",
       [](HandMadeGguf& f) { f.tensors.push_back({"rope_freqs.weight", {4}, Fill::kOne}); }},
      {"a rotary frequency divisor is 0",
       [](HandMadeGguf& f) { f.tensors.push_back({"rope_freqs.weight", {8}, Fill::kZero}); }},
      {"llama.rope.dimension_count is 8, expected the head width 16",
       [](HandMadeGguf& f) { f.keys["llama.rope.dimension_count"] = std::uint32_t{8}; }},
      {"llama.attention.value_length is 32",
       [](HandMadeGguf& f) { f.keys["llama.attention.value_length"] = std::uint32_t{32}; }},
      {"token_embd.weight is [96, 64], expected rows of 32",
       [](HandMadeGguf& f) { f.keys["llama.embedding_length"] = std::uint32_t{32}; }},
      {"llama.vocab_size is 95, but token_embd.weight has 96 rows",
       [](HandMadeGguf& f) { f.keys["llama.vocab_size"] = std::uint32_t{95}; }},
      {"token_embd.weight", [](HandMadeGguf& f) { drop_tensor(f, "token_embd.weight"); }},
      {"llama.block_count is 100000",
       [](HandMadeGguf& f) { f.keys["llama.block_count"] = std::uint32_t{100000}; }},
      {"llama.feed_forward_length",
       [](HandMadeGguf& f) {
         f.keys["llama.feed_forward_length"] = std::vector<std::int32_t>{96};
       }},
      {"llama.attention.layer_norm_rms_epsilon is missing",
       [](HandMadeGguf& f) { f.keys.erase("llama.attention.layer_norm_rms_epsilon"); }},
      {"architecture llama has all parts in every layer",
       [](HandMadeGguf& f) {
         f.keys["llama.attention.head_count_kv"] = std::vector<std::int32_t>{4, 0, 4};
       }},
      {"no layer has attention heads",
       [](HandMadeGguf& f) {
         f.keys["general.architecture"] = std::string("deci");
         for (const auto& [key, value] : std::map(f.keys)) {
           f.keys["deci." + key.substr(key.find('.') + 1)] = value;
         }
         f.keys["deci.attention.head_count"] = std::int32_t{0};
         f.keys["deci.attention.head_count_kv"] = std::int32_t{0};
       }},
      {"layer 1 has -4 heads",
       [](HandMadeGguf& f) {
         f.keys["llama.attention.head_count"] = std::vector<std::int32_t>{4, -4, 4};
       }},
      {"layer 0 has 3 KV heads, expected a divisor",
       [](HandMadeGguf& f) { f.keys["llama.attention.head_count_kv"] = std::uint32_t{3}; }},
      {"tensor blk.0.attn_q.bias is there, but blk.2.attn_v.bias is not",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.0.attn_q.bias", {64}}); }},
      {"tensor blk.2.ffn_up.bias is there",
       [](HandMadeGguf& f) { f.tensors.push_back({"blk.2.ffn_up.bias", {96}}); }},
      {"of type string, expected a whole number",
       [](HandMadeGguf& f) { f.keys["llama.block_count"] = std::string("3"); }},
  };
  for (const FileChange& change : changes) {
    HandMadeGguf made = llama_file(small_spec());
    change.apply(made);
    EXPECT_PUZZLE_ERROR(static_cast<void>(read(made)), ErrorKind::kFormat, change.part);
  }
}

TEST_F(GgufConfig, WritesTheKeysOfDeci) {
  ModelSpec spec =
      small_spec(parse_layers({"none/none", "none/w96", "kv2/none", "linear/w50", "none/linear"}));
  spec.head_dim = 32;
  spec.rope = {
      .kind = RopeKind::kLlama3, .theta = 500000.0, .factor = 8.0, .original_context = 8192};
  GgufWriter writer;
  write_gguf_config(ExportTarget::kDeci, spec, DType::kQ4_1, writer);
  writer.write(path_);
  const GgufFile file(path_);
  using I32 = std::vector<std::int32_t>;
  const std::map<std::string, GgufValue, std::less<>> expected = {
      {"general.architecture", std::string("deci")},
      {"general.name", std::string("small")},
      {"general.file_type", std::uint32_t{3}},
      {"general.quantization_version", std::uint32_t{2}},
      {"deci.block_count", std::uint32_t{4}},
      {"deci.context_length", std::uint32_t{128}},
      {"deci.embedding_length", std::uint32_t{64}},
      {"deci.vocab_size", std::uint32_t{96}},
      {"deci.attention.head_count", I32{4, 4, 4, 0}},
      {"deci.attention.head_count_kv", I32{0, 2, 0, 0}},
      {"deci.feed_forward_length", I32{96, 32, 50, 64}},
      {"deci.attention.key_length", std::uint32_t{32}},
      {"deci.attention.value_length", std::uint32_t{32}},
      {"deci.attention.layer_norm_rms_epsilon", 1e-5F},
      {"deci.rope.dimension_count", std::uint32_t{32}},
      {"deci.rope.freq_base", 500000.0F}};
  EXPECT_EQ(file.metadata(), expected);
  ASSERT_EQ(file.tensors().size(), 1U);
  EXPECT_EQ(file.tensors()[0].name, "rope_freqs.weight");
  EXPECT_EQ(file.tensors()[0].shape, (std::vector<std::int64_t>{16}));
}

TEST_F(GgufConfig, WritesTheKeysOfOpenElm) {
  ModelSpec spec = small_spec(parse_layers({"none/none", "none/w96", "kv2/none", "kv4/w50"}));
  spec.qk_norm = spec.tie_embeddings = true;
  GgufWriter writer;
  write_gguf_config(ExportTarget::kOpenElm, spec, DType::kQ4_K, writer);
  writer.add_tensor({.name = "x",
                     .dtype = DType::kF32,
                     .shape = {1},
                     .bytes = {},
                     .produce = [](const ByteSink& sink) { sink(std::vector<std::byte>(4)); }});
  writer.write(path_);
  const GgufFile file(path_);
  using I32 = std::vector<std::int32_t>;
  EXPECT_EQ(file.string_value("general.architecture"), "openelm");
  EXPECT_EQ(file.int_value("general.file_type"), 14);
  EXPECT_EQ(file.int_value("openelm.block_count"), 3);
  EXPECT_EQ(file.metadata().at("openelm.attention.head_count"), GgufValue(I32{1, 4, 4}));
  EXPECT_EQ(file.metadata().at("openelm.attention.head_count_kv"), GgufValue(I32{1, 2, 4}));
  EXPECT_EQ(file.metadata().at("openelm.feed_forward_length"), GgufValue(I32{96, 32, 50}));
}

// As Apple's are, whose layers have more heads the later they come.
TEST_F(GgufConfig, OpenElmOfOtherMakersIsReadIfItsHeadsAreOneNumber) {
  ModelSpec spec = small_spec();
  spec.qk_norm = spec.tie_embeddings = true;
  HandMadeGguf made = qwen_file(spec, "openelm");
  std::erase_if(made.tensors, [](const NaiveTensor& tensor) {
    return tensor.name.find("attn_q.") != std::string::npos ||
           tensor.name.find("attn_k.") != std::string::npos ||
           tensor.name.find("attn_v.") != std::string::npos;
  });
  for (const char* layer : {"blk.0.", "blk.1.", "blk.2."}) {
    made.tensors.push_back({layer + std::string("attn_qkv.weight"), {3 * 64, 64}});
    made.tensors.push_back({layer + std::string("attn_q_norm.weight"), {16}});
    made.tensors.push_back({layer + std::string("attn_k_norm.weight"), {16}});
  }
  EXPECT_EQ(read(made), spec);
  EXPECT_TRUE(has_fused_attention(GgufFile(path_)));
  EXPECT_FALSE(has_interleaved_rotary_rows(GgufFile(path_)));
  HandMadeGguf other = made;
  other.keys["openelm.attention.head_count"] = std::vector<std::int32_t>{2, 4, 4};
  other.keys["openelm.attention.head_count_kv"] = std::vector<std::int32_t>{1, 4, 4};
  EXPECT_PUZZLE_ERROR(static_cast<void>(read(other)), ErrorKind::kFormat,
                      "layer 0 has 2 heads, 1 KV heads and FFN width 96, but architecture openelm");
  other = made;
  other.tensors.push_back({"output.weight", {96, 64}});
  EXPECT_PUZZLE_ERROR(static_cast<void>(read(other)), ErrorKind::kFormat,
                      "tensor output.weight is not supported in architecture openelm");
}

TEST_F(GgufConfig, RefusesToWriteWhatLlamaCppCannotRun) {
  GgufWriter writer;
  EXPECT_PUZZLE_ERROR(
      write_gguf_config(ExportTarget::kDeci, small_spec(parse_layers({"linear/w96"})), DType::kF32,
                        writer),
      ErrorKind::kUsage, "deci export: no layer has GQA attention");
  EXPECT_PUZZLE_ERROR(write_gguf_config(ExportTarget::kDeci, small_spec(), DType::kQ5_K, writer),
                      ErrorKind::kUsage, "Q5_K: expected F32");
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
