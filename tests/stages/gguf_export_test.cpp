// GGUF exports of small random children: llama.cpp and our own loader compute what the native
// decoder computes.
#include "puzzle/stages/gguf_export.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "puzzle/arch/lowering.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_quant.h"
#include "puzzle/model/checkpoint.h"
#include "stages/exported_model.h"
#include "stages/small_children.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::child_spec;
using test::gguf_options;
using test::kVocab;
using test::llama_cpp_log_probs;
using test::log_probs;
using test::native_logits;
using test::round_weights;
using test::server_options;
using test::super_block_spec;
using test::token_ids;
using test::tokenizer_source;

TEST(ExportToLlamaCpp, EveryBlockInEveryPositionComputesTheSame) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  std::set<BlockSpec> first, last;
  double worst = 0.0;
  for (std::int64_t i = 0; i < 9; ++i) {
    const ModelWeights child = random_model(child_spec(i), 100 + i);
    SCOPED_TRACE(fmt::format("child {}", i));
    first.insert(child.spec.layers.front());
    last.insert(child.spec.layers.back());
    const fs::path file = folder / fmt::format("child-{}.gguf", i);
    write_model_gguf(file, child, gguf_options("f32"));
    const at::Tensor got = llama_cpp_log_probs(file, child.head);
    const at::Tensor want = log_probs(native_logits(child));
    EXPECT_CLOSE(got, want, 5e-5);  // 4e-6 measured
    worst = std::max(worst, (got - want).abs().max().item<double>());
  }
  EXPECT_EQ(first.size(), 9U);
  EXPECT_EQ(last.size(), 9U);
  RecordProperty("largest_difference", fmt::format("{:.1e}", worst));
}

// Token by token through llama.cpp's cache, in its usual mode.
TEST(ExportToLlamaCpp, ScoresTokensInItsUsualMode) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  const ModelWeights child = random_model(child_spec(1), 5);
  write_model_gguf(folder / "child.gguf", child, gguf_options("f32"));
  const LlamaServer server(folder / "child.gguf", server_options());
  const std::vector<std::int32_t> tokens = token_ids();
  const std::vector<double> scores = server.token_log_probs(std::span(tokens).first(16));
  const at::Tensor want = log_probs(native_logits(child));
  ASSERT_EQ(scores.size(), 15U);
  for (std::int64_t t = 0; t < 15; ++t) {
    EXPECT_NEAR(scores[static_cast<std::size_t>(t)],
                want[t][tokens[static_cast<std::size_t>(t) + 1]].item<double>(), 5e-5)
        << t;
  }
}

// llama.cpp rounds the inputs of block types to 8 bits, which is the larger part of what remains.
TEST(ExportToLlamaCpp, SuperBlocksComputeWhatTheyDecodeTo) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  const auto mean_difference = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().mean().item<double>();
  };
  double of_8_bits = 0.0;
  for (const auto& [name, dtype] :
       {std::pair{"q8_0", DType::kQ8_0}, {"q4_k", DType::kQ4_K}, {"q6_k", DType::kQ6_K}}) {
    SCOPED_TRACE(name);
    ModelWeights child = random_model(super_block_spec(), 11);
    const GgufExport options = gguf_options(name);
    write_model_gguf(folder / "child.gguf", child, options);
    EXPECT_EQ(GgufFile(folder / "child.gguf").tensor("blk.0.ffn_down.weight").dtype, dtype);
    const at::Tensor plain = log_probs(native_logits(child));
    round_weights(child, options.types);
    const at::Tensor got = llama_cpp_log_probs(folder / "child.gguf", child.head);
    const at::Tensor want = log_probs(native_logits(child));
    EXPECT_CLOSE(got, want, 0.25);
    const double difference = mean_difference(got, want);
    if (dtype == DType::kQ8_0) {
      of_8_bits = difference;
    } else {
      EXPECT_LT(difference, 2.0 * of_8_bits);
      EXPECT_LT(difference, 0.6 * mean_difference(plain, want));
    }
    RecordProperty(name,
                   fmt::format("{:.1e} mean, {:.1e} at most to what it decodes to; {:.1e} mean "
                               "from there to the model",
                               difference, (got - want).abs().max().item<double>(),
                               mean_difference(plain, want)));
  }
}

TEST(DeciGguf, OurLoaderReadsBackTheRoundedWeights) {
  ModelSpec spec = child_spec(0);
  spec.layers = {{AttentionSpec::none(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(2), FfnSpec::swiglu(50)},
                 {AttentionSpec::linear(), FfnSpec::linear()},
                 {AttentionSpec::gqa(1), FfnSpec::none()}};
  spec.tie_embeddings = false;
  const test::TempDir folder;
  for (const char* name : {"f32", "f16", "bf16", "q8_0", "q5_0", "q4_0", "q4_1", "q4_k", "q6_k"}) {
    SCOPED_TRACE(name);
    ModelWeights child = random_model(spec, 3);
    const GgufExport options = gguf_options(name);
    write_model_gguf(folder / "child.gguf", child, options);
    round_weights(child, options.types);
    const ModelWeights back = load_model(folder / "child.gguf", at::kFloat);
    EXPECT_EQ(back.spec.layers, child.spec.layers);
    EXPECT_EQ(back.spec.rope, child.spec.rope);
    EXPECT_TRUE(back.spec.attention_bias && back.spec.attention_output_bias && back.spec.mlp_bias);
    EXPECT_CLOSE(native_logits(back), native_logits(child), 1e-6);
  }
}

TEST(DeciGguf, SuperBlocksReadBackAndFallBackByRow) {
  const test::TempDir folder;
  ModelWeights child = random_model(super_block_spec(), 3);
  const GgufExport options = gguf_options("q4_k");
  write_model_gguf(folder / "child.gguf", child, options);
  const GgufFile file(folder / "child.gguf");
  EXPECT_EQ(file.tensor("token_embd.weight").dtype, DType::kQ6_K);
  EXPECT_EQ(file.tensor("blk.0.attn_q.weight").dtype, DType::kQ4_K);
  EXPECT_EQ(file.tensor("blk.2.ffn_down.weight").dtype, DType::kQ5_0);  // rows of 96
  std::int64_t bytes = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    bytes += static_cast<std::int64_t>(tensor.bytes.size());
  }
  EXPECT_EQ(model_cost(child.spec, ExportTarget::kDeci, options.types).weight_bytes, bytes);
  round_weights(child, options.types);
  const ModelWeights back = load_model(folder / "child.gguf", at::kFloat);
  EXPECT_EQ(back.spec.layers, child.spec.layers);
  EXPECT_CLOSE(native_logits(back), native_logits(child), 1e-6);
}

TEST(DeciGguf, NamesParentLicenceAndContent) {
  const test::TempDir folder;
  GgufExport options = gguf_options("q4_1");
  options.content_key = "0123";
  write_model_gguf(folder / "child.gguf", random_model(child_spec(0), 3), options);
  const GgufFile file(folder / "child.gguf");
  EXPECT_EQ(file.string_value("general.name"), "tiny child");
  EXPECT_EQ(file.string_value("general.license"), "mit");
  EXPECT_EQ(file.string_value("general.base_model.0.name"), "tiny parent");
  EXPECT_EQ(file.string_value("puzzle.content_key"), "0123");
  EXPECT_EQ(std::ssize(file.string_list("tokenizer.ggml.tokens")), kVocab);
  // The 4-bit types leave the embedding in 8 bits; "like-parent" then takes both from the file.
  const WeightTypes types = gguf_weight_types("like-parent", folder / "child.gguf");
  EXPECT_EQ(types.matrix, DType::kQ4_1);
  EXPECT_EQ(types.embedding, DType::kQ8_0);
  EXPECT_EQ(gguf_weight_types("like-parent", tokenizer_source()).matrix, DType::kF16);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("q3_k", ""), ErrorKind::kUsage,
                      "GGUF type 'q3_k': expected like-parent, f32");
}

TEST(DeciGguf, RefusesAModelWithoutAttention) {
  ModelSpec spec = child_spec(0);
  spec.layers.assign(2, {AttentionSpec::linear(), FfnSpec::swiglu(96)});
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR(
      write_model_gguf(folder / "child.gguf", random_model(spec, 3), gguf_options("f32")),
      ErrorKind::kUsage, "no layer has GQA attention");
  EXPECT_FALSE(fs::exists(folder / "child.gguf"));
}

// A file with one layer's matrices in one type and more of them in another.
void write_mixed_gguf(const fs::path& file, DType few, DType many, DType embedding) {
  GgufWriter writer;
  const auto add = [&](const std::string& name, DType type) {
    writer.add_tensor({.name = name,
                       .dtype = type,
                       .shape = {2, 256},
                       .bytes = {},
                       .produce = [type](const ByteSink& sink) {
                         sink(std::vector<std::byte>(2 * 256 / dtype_info(type).block_elements *
                                                     dtype_info(type).block_bytes));
                       }});
  };
  add("token_embd.weight", embedding);
  add("blk.0.ffn_up.weight", few);
  add("blk.0.ffn_down.weight", many);
  add("blk.1.ffn_up.weight", many);
  writer.write(file);
}

TEST(DeciGguf, LikeParentIsTheTypeOfMostMatricesIfItCanBeWritten) {
  const test::TempDir folder;
  const fs::path file = folder / "m.gguf";
  write_mixed_gguf(file, DType::kQ4_1, DType::kQ8_0, DType::kQ8_0);
  EXPECT_EQ(gguf_weight_types("like-parent", file).matrix, DType::kQ8_0);
  write_mixed_gguf(file, DType::kQ6_K, DType::kQ4_K, DType::kQ6_K);
  EXPECT_EQ(gguf_weight_types("like-parent", file).matrix, DType::kQ4_K);
  EXPECT_EQ(gguf_weight_types("like-parent", file).embedding, DType::kQ6_K);
  write_mixed_gguf(file, DType::kQ8_0, DType::kQ5_K, DType::kQ8_0);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("like-parent", file), ErrorKind::kUsage,
                      "matrices of m.gguf are Q5_K, which is read but not written; name a type");
  write_mixed_gguf(file, DType::kQ4_0, DType::kQ4_0, DType::kQ3_K);
  EXPECT_PUZZLE_ERROR((void)gguf_weight_types("like-parent", file), ErrorKind::kUsage,
                      "token embedding of m.gguf are Q3_K");
}

}  // namespace
}  // namespace puzzle
