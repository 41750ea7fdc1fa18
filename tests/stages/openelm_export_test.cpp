// GGUF exports of architecture `openelm`: tied models with norms of q and k.
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/arch/cost.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/model/checkpoint.h"
#include "stages/exported_model.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::kVocab;
using test::log_probs;
using test::native_logits;

const std::vector<BlockSpec> kOpenElmBlocks = {{AttentionSpec::gqa(2), FfnSpec::swiglu(96)},
                                               {AttentionSpec::none(), FfnSpec::swiglu(64)},
                                               {AttentionSpec::gqa(1), FfnSpec::none()},
                                               {AttentionSpec::gqa(4), FfnSpec::swiglu(50)},
                                               {AttentionSpec::none(), FfnSpec::none()}};

// Child i of five: every block stands first, in the middle and last in one of them.
ModelSpec openelm_spec(std::int64_t i) {
  ModelSpec spec = test::tiny_spec();
  spec.name = fmt::format("child-{}", i);
  spec.vocab_size = kVocab;
  spec.tie_embeddings = true;
  spec.qk_norm = true;
  spec.rope.theta = 1e6;
  const auto block = [i](std::int64_t place) {
    return kOpenElmBlocks[static_cast<std::size_t>((i + place) % 5)];
  };
  spec.layers = {block(0), block(2), block(1), block(4), block(3)};
  if (i % 2 == 1) {
    spec.rope.kind = i == 1 ? RopeKind::kYarn : RopeKind::kLinear;
    spec.rope.factor = 4.0;
    spec.rope.original_context = i == 1 ? 32 : 0;
  }
  return spec;
}

// Norms of q and k that are all 1 would hide that one is not read.
ModelWeights openelm_model(const ModelSpec& spec, std::uint64_t seed) {
  ModelWeights model = random_model(spec, seed);
  double sign = 1.0;
  for (LayerWeights& layer : model.layers) {
    for (at::Tensor* norm : {&layer.attention.q_norm, &layer.attention.k_norm}) {
      if (norm->defined()) {
        *norm = 1.0 + sign * at::arange(spec.head_dim, at::TensorOptions(at::kFloat)) /
                          static_cast<double>(2 * spec.head_dim);
        sign = -sign;
      }
    }
  }
  return model;
}

GgufExport openelm_options(const std::string& types) {
  GgufExport options = test::gguf_options(types);
  options.target = ExportTarget::kOpenElm;
  return options;
}

TEST(OpenElmGguf, EveryBlockInEveryPositionComputesTheSameInLlamaCpp) {
  PUZZLE_REQUIRE_LLAMA_CPP();
  const test::TempDir folder;
  double worst = 0.0;
  for (std::int64_t i = 0; i < 5; ++i) {
    SCOPED_TRACE(fmt::format("child {}", i));
    const ModelWeights child = openelm_model(openelm_spec(i), 40 + i);
    const fs::path file = folder / fmt::format("child-{}.gguf", i);
    write_model_gguf(file, child, openelm_options("f32"));
    const at::Tensor got = test::llama_cpp_log_probs(file, child.embedding);
    const at::Tensor want = log_probs(native_logits(child));
    EXPECT_CLOSE(got, want, 5e-5);
    worst = std::max(worst, (got - want).abs().max().item<double>());
  }
  RecordProperty("largest_difference", fmt::format("{:.1e}", worst));
}

TEST(OpenElmGguf, OurLoaderReadsItBackAndCostsAreItsBytes) {
  const test::TempDir folder;
  for (const char* name : {"f32", "q8_0", "q4_k"}) {
    for (std::int64_t i = 0; i < 5; ++i) {
      SCOPED_TRACE(fmt::format("{}, child {}", name, i));
      ModelWeights child = openelm_model(openelm_spec(i), 3);
      const GgufExport options = openelm_options(name);
      write_model_gguf(folder / "child.gguf", child, options);
      std::int64_t bytes = 0;
      const GgufFile file(folder / "child.gguf");
      for (const StoredTensor& tensor : file.tensors()) {
        bytes += static_cast<std::int64_t>(tensor.bytes.size());
      }
      EXPECT_EQ(model_cost(child.spec, ExportTarget::kOpenElm, options.types).weight_bytes, bytes);
      test::round_weights(child, options.types);
      const ModelWeights back = load_model(folder / "child.gguf", at::kFloat);
      Architecture kept = child.spec.layers;
      std::erase(kept, parse_block("none/none"));
      EXPECT_EQ(back.spec.layers, kept);
      EXPECT_EQ(back.spec.rope, child.spec.rope);
      EXPECT_TRUE(back.spec.qk_norm && back.spec.tie_embeddings);
      EXPECT_CLOSE(native_logits(back), native_logits(child), 1e-5);
    }
  }
}

TEST(OpenElmGguf, ACutMatrixIsRefused) {
  const test::TempDir folder;
  const ModelWeights child = openelm_model(openelm_spec(0), 3);
  write_model_gguf(folder / "child.gguf", child, openelm_options("f32"));
  const GgufFile whole(folder / "child.gguf");
  GgufWriter writer;
  for (const auto& [key, value] : whole.metadata()) {
    writer.add_value(key, value);
  }
  for (const StoredTensor& tensor : whole.tensors()) {
    const bool is_cut = tensor.name == "blk.0.attn_qkv.weight";
    std::vector<std::int64_t> shape = tensor.shape;
    shape[0] -= is_cut ? 1 : 0;
    const std::size_t row = tensor.bytes.size() / static_cast<std::size_t>(tensor.shape[0]);
    writer.add_tensor({.name = tensor.name,
                       .dtype = tensor.dtype,
                       .shape = shape,
                       .bytes = tensor.bytes.first(tensor.bytes.size() - (is_cut ? row : 0)),
                       .produce = {}});
  }
  writer.write(folder / "cut.gguf");
  EXPECT_PUZZLE_ERROR((void)load_model(folder / "cut.gguf", at::kFloat), ErrorKind::kFormat,
                      "tensor blk.0.attn_qkv.weight is [255, 64]");
}

TEST(OpenElmGguf, RefusesWhatItHasNoFormFor) {
  const test::TempDir folder;
  const auto expect_refused = [&](const ModelSpec& spec, const char* reason) {
    EXPECT_PUZZLE_ERROR(
        write_model_gguf(folder / "c.gguf", random_model(spec, 1), openelm_options("f32")),
        ErrorKind::kUsage, reason);
    EXPECT_FALSE(fs::exists(folder / "c.gguf"));
  };
  ModelSpec spec = openelm_spec(0);
  spec.layers[1] = parse_block("linear/w96");
  expect_refused(spec, "a linear sub-block, which openelm has no form for");
  spec.layers[1] = parse_block("kv2/linear");
  expect_refused(spec, "a linear sub-block, which openelm has no form for");
  spec = openelm_spec(0);
  spec.tie_embeddings = false;
  expect_refused(spec, "the head is a matrix of its own");
  spec = openelm_spec(0);
  spec.attention_bias = true;
  expect_refused(spec, "it has biases");
  spec = openelm_spec(0);
  spec.qk_norm = false;
  expect_refused(spec, "q and k have no norms");
  spec = openelm_spec(0);
  spec.rope = {.kind = RopeKind::kLlama3, .factor = 4.0, .original_context = 32};
  expect_refused(spec, "scaled as llama3's are");
  spec = openelm_spec(0);
  spec.layers.assign(2, parse_block("none/w96"));
  expect_refused(spec, "no layer has GQA attention");
}

}  // namespace
}  // namespace puzzle
