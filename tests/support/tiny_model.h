// Seeded small models for tests.
#pragma once

#include "puzzle/arch/model_spec.h"
#include "puzzle/model/weights.h"

namespace puzzle::test {

// A Llama of 64 hidden channels whose head width times heads is not the hidden size.
inline ModelSpec tiny_spec(std::int64_t layers = 3) {
  ModelSpec spec;
  spec.name = "tiny";
  spec.hidden_size = 64;
  spec.num_heads = 4;
  spec.head_dim = 32;
  spec.vocab_size = 300;
  spec.context_length = 128;
  spec.rms_norm_eps = 1e-5;
  spec.tie_embeddings = false;
  spec.rope.theta = 10000.0;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  spec.layers.assign(static_cast<std::size_t>(layers),
                     {AttentionSpec::gqa(4), FfnSpec::swiglu(96)});
  return spec;
}

inline ModelWeights tiny_model(std::int64_t layers = 3, std::uint64_t seed = 7) {
  return random_model(tiny_spec(layers), seed);
}

}  // namespace puzzle::test
