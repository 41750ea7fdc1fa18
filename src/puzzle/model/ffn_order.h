// One order of an FFN's channels for all widths, and the refitted down projection of each.
//
// Structured backward elimination, as in optimal brain surgeon. With G = A + ridge·I
// over the channels still alive, H = G⁻¹ and W the down projection that makes the best of them,
// leaving out channel k costs ‖W_k‖² / H_kk. The cheapest go, in groups of at most 1/32 of those
// alive, jointly:
//   W_keep ← W_keep − W_rem·(H_rem,rem)⁻¹·H_rem,keep,   H ← Schur complement.
// W after each step is the minimiser of tr((W − W_parent)·G·(W − W_parent)ᵀ) over the channels
// alive, so any width follows from the order and one Cholesky factor of G.
//
// Shape letters: D hidden, F the parent's FFN width.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace puzzle {

struct FfnOrder {
  at::Tensor channels;  // int64 [F]: the parent's channels, the last to be given up first
  at::Tensor lower;     // fp64 [F, F]: Cholesky factor of G in that order
  at::Tensor target;    // fp64 [F, D]: lowerᵀ·W_parentᵀ in that order
  double lambda = 0.0;  // relative ridge used (ridge.h)
};

// `xx` fp64 [F, F] = Σ w x xᵀ of the intermediate activations, `down` [D, F]. About 10 F³ FLOPs.
// Where rounding makes the elimination fail, it starts again with ten times the ridge, and a
// warning says so. Throws as factor_with_ridge.
[[nodiscard]] FfnOrder order_ffn_channels(const at::Tensor& xx_FF, const at::Tensor& down_DF,
                                          double lambda, const std::string& place);

// The down projection fp64 [D, width] for the first `width` channels of the order; the parent's own
// (to rounding) at full width.
[[nodiscard]] at::Tensor refit_down(const FfnOrder& order, std::int64_t width);

}  // namespace puzzle
