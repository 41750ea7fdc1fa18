// Small children of all kinds of blocks, for exports.
#pragma once

#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include "puzzle/arch/model_spec.h"
#include "stages/exported_model.h"
#include "support/tiny_model.h"

namespace puzzle::test {

inline const std::vector<AttentionSpec> kAttentions = {
    AttentionSpec::gqa(2), AttentionSpec::linear(), AttentionSpec::none()};
inline const std::vector<FfnSpec> kFfns = {FfnSpec::swiglu(96), FfnSpec::linear(), FfnSpec::none()};

inline BlockSpec pair_of(std::int64_t i) {
  const auto index = static_cast<std::size_t>(i % 9);
  return {kAttentions[index % 3], kFfns[index / 3]};
}

// Child i of nine: every pair of kinds stands first, in the middle and last in one of them, with
// other rotary scalings, biases and heads as they go.
inline ModelSpec child_spec(std::int64_t i) {
  ModelSpec spec = tiny_spec();
  spec.name = fmt::format("child-{}", i);
  spec.vocab_size = kVocab;
  spec.layers = {pair_of(i),
                 pair_of(i + 3),
                 {AttentionSpec::gqa(1), FfnSpec::swiglu(50)},
                 pair_of(i + 7),
                 pair_of(2 * i + 4)};
  spec.tie_embeddings = i % 3 == 0;
  spec.attention_bias = i % 2 == 0;
  spec.attention_output_bias = i % 4 == 0;
  spec.mlp_bias = i % 5 == 0;
  spec.rope.kind = std::vector{RopeKind::kDefault, RopeKind::kLlama3, RopeKind::kYarn,
                               RopeKind::kLinear}[static_cast<std::size_t>(i % 4)];
  if (spec.rope.kind != RopeKind::kDefault) {
    spec.rope.factor = 4.0;
    spec.rope.original_context = spec.rope.kind == RopeKind::kLinear ? 0 : 32;
  }
  return spec;
}

// Rows of 256 and 512 hold super-blocks, the others fall back.
inline ModelSpec super_block_spec() {
  ModelSpec spec = child_spec(1);
  spec.hidden_size = 256;
  spec.head_dim = 64;
  spec.layers = {{AttentionSpec::gqa(2), FfnSpec::swiglu(512)},
                 {AttentionSpec::gqa(1), FfnSpec::linear()},
                 {AttentionSpec::linear(), FfnSpec::swiglu(96)},
                 {AttentionSpec::gqa(4), FfnSpec::none()}};
  return spec;
}

}  // namespace puzzle::test
