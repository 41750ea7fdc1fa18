// A walk back through the layers of a frozen model with the gradients of its own log-probabilities:
// what second-order scores are made of.
//
// Shape letters: S samples, B windows, T tokens per window, D hidden.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "puzzle/model/decoder.h"
#include "puzzle/model/weights.h"

namespace puzzle {

// One layer of the walk; tensors are valid during the visit only.
struct LayerGradients {
  std::int64_t layer = 0;
  at::Tensor input_BTD;
  at::Tensor output_BTD;
  // Of Σ_t log q(y_sbt), with labels y drawn from the model's own distribution q at every position,
  // at the layer's output. Covariance over labels = Fisher information, i.e. the second derivative
  // of KL(q ‖ ·) at q itself.
  at::Tensor sampled_SBTD;
  // Of Σ_t KL(parent ‖ model)_bt at the layer's output; undefined without a parent.
  at::Tensor kl_BTD;
};

using LayerVisitor = std::function<void(const LayerGradients& gradients)>;

struct GradientWalk {
  at::Tensor tokens_BT;
  const PassContext* pass = nullptr;
  at::Tensor uniforms_BTS;     // in [0, 1): which labels are drawn (head_gradients.h)
  at::Tensor parent_final_ND;  // the parent's final hidden states of the same tokens, or undefined
  at::Tensor parent_head_VD;
  std::int64_t first_layer = 0;  // the walk ends there
};

// Visits layers L-1, …, first_layer. Weights need no gradient and get none. Keeps the inputs of all
// layers, L·B·T·D, and recomputes one layer's inner activations at a time; one forward pass, one
// more by layers, and S + 1 backward passes for activations alone. Returns the KL per token [N],
// undefined without a parent.
at::Tensor walk_gradients(const ModelWeights& model, const Geometry& geometry,
                          const GradientWalk& walk, const LayerVisitor& visit);

// [B, T, S] numbers for windows first_window, … of a part: each window has its own stream, so
// neither batches nor ranks change them.
[[nodiscard]] at::Tensor window_uniforms(std::uint64_t seed, std::int64_t first_window,
                                         std::int64_t num_windows, std::int64_t window_tokens,
                                         std::int64_t samples);

}  // namespace puzzle
