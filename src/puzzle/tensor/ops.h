// The mathematics of a Llama layer as free functions over tensors.
//
// Shape letters: B sequences, T new tokens, S cached + new tokens, D hidden, H query heads, K KV
// heads, E head width, F FFN width.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace puzzle {

// x * weight / rms(x) over the last dimension, statistics in fp32. weight [D].
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Cosines and sines of one pass, [T, E/2] or, with positions that differ between sequences,
// [B, 1, T, E/2]; already times the attention factor of yarn.
struct RotaryAngles {
  at::Tensor cos;
  at::Tensor sin;
};

// `inverse_frequencies` [E/2] fp64 on the CPU; `positions` int64 [T] or [B, T].
[[nodiscard]] RotaryAngles make_rotary_angles(const at::Tensor& inverse_frequencies,
                                              double attention_factor, const at::Tensor& positions,
                                              c10::ScalarType type, const c10::Device& device);

// Half-split (NEOX) rotation of x [B, heads, T, E].
[[nodiscard]] at::Tensor apply_rotary(const at::Tensor& x_BHTE, const RotaryAngles& angles);

// Each of K heads for H / K queries in turn: [B, K, S, E] -> [B, H, S, E].
[[nodiscard]] at::Tensor repeat_heads(const at::Tensor& x_BKSE, std::int64_t num_heads);

// softmax(q kᵀ / √E) v with grouped KV heads: q [B, H, T, E], k and v [B, K, S, E], H a multiple of
// K. Without `mask`, T == S is causal and T == 1 sees everything; otherwise `mask` is bool,
// broadcastable to [B, 1, T, S], true = may look. Returns [B, H, T, E].
[[nodiscard]] at::Tensor attention(const at::Tensor& q_BHTE, const at::Tensor& k_BKSE,
                                   const at::Tensor& v_BKSE, const at::Tensor& mask);

// silu(gate) * up.
[[nodiscard]] at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

}  // namespace puzzle
