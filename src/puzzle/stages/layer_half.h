// A layer is two sub-blocks of one form, x + output · φ(norm(x)): code that treats both alike.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "puzzle/model/decoder.h"

namespace puzzle {

enum class Half : std::uint8_t { kAttention, kFfn };

[[nodiscard]] const char* half_name(Half half);  // "attention", "ffn"
[[nodiscard]] bool is_none(const LayerWeights& layer, Half half);

// x + sub-block(x), [B, T, D].
[[nodiscard]] at::Tensor apply_half(const LayerWeights& layer, Half half, const Geometry& geometry,
                                    const at::Tensor& x, const PassContext& pass);
// norm(x), φ of it, and output · φ (+ bias); see decoder.h. Not for "none".
[[nodiscard]] at::Tensor half_input(const LayerWeights& layer, Half half, const Geometry& geometry,
                                    const at::Tensor& x);
[[nodiscard]] at::Tensor half_features(const LayerWeights& layer, Half half,
                                       const Geometry& geometry, const at::Tensor& x,
                                       const PassContext& pass);
[[nodiscard]] at::Tensor half_output(const LayerWeights& layer, Half half,
                                     const at::Tensor& features);

// The output matrix and its bias.
[[nodiscard]] const at::Tensor& half_matrix(const LayerWeights& layer, Half half);
[[nodiscard]] const at::Tensor& half_bias(const LayerWeights& layer, Half half);
void set_half_matrix(LayerWeights& layer, Half half, at::Tensor matrix);

// The matrices [.., D] that read norm(x) and are not the output matrix: q, k and v, gate and up;
// none of the kinds "linear" and "none".
void visit_input_matrices(LayerWeights& layer, Half half,
                          const std::function<void(at::Tensor& matrix)>& visit);

}  // namespace puzzle
