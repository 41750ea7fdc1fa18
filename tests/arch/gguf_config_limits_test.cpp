// What is refused on reading, and what is written.
#include <functional>
#include <map>

#include <gtest/gtest.h>

#include "arch/hand_made_gguf.h"
#include "puzzle/arch/gguf_config.h"
#include "puzzle/arch/lowering.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::Fill;
using test::GgufConfig;
using test::HandMadeGguf;
using test::llama_file;
using test::NaiveTensor;
using test::parse_layers;
using test::qwen_file;
using test::small_spec;

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

}  // namespace
}  // namespace puzzle
