// Gradients behind the vocabulary projection, computed chunk by chunk as the losses of head_loss.h:
// what a walk back through the layers starts from.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "puzzle/tensor/head_loss.h"

namespace puzzle {

// Shape letters: S samples, N tokens, D hidden.
struct HeadGradients {
  at::Tensor sampled_SND;  // ∂ log q(y_sn) / ∂ hidden_n of labels y_sn drawn from q; fp32
  at::Tensor kl_ND;        // ∂ KL(parent ‖ model)_n / ∂ hidden_n; undefined without a parent
  at::Tensor kl_N;         // that KL, nats; undefined without a parent
};

// q = softmax(head · hidden). Labels are drawn by inverting the cumulative distribution at
// `uniforms_NS` in [0, 1), so the same numbers give the same labels whatever the chunk. No
// autograd. `parent` may be null. `chunk_tokens` bounds memory: chunk × V × 4 bytes × 4.
[[nodiscard]] HeadGradients head_gradients(const HeadInput& model, const at::Tensor& uniforms_NS,
                                           const HeadInput* parent,
                                           std::int64_t chunk_tokens = 256);

}  // namespace puzzle
