// One FFN that holds every width up to its own: one order of channels, and a down projection for
// each width from what two matrices say.
//
// The width w has the first w rows of gate and up, and
//   down_w = C[:, :w] · K[:w, :w],   K lower triangular.
// In other words z = K·x is a second set of features of which z_j depends on the channels up to j
// alone, and every width is a prefix of both. Least squares gives just that: with G = L·Lᵀ the Gram
// matrix (ridge included) of the ordered channels and W the parent's down projection, the refit on
// the first w channels is W_w = W·G_{:,w}·(G_{w,w})⁻¹, and L_w⁻¹ is the leading block of L⁻¹, so
//   K = s·L⁻¹,   C = W·L / s
// give all widths (ffn_order.h derives the refit). z is orthonormal over the calibration tokens,
// which is why one C serves all widths: leaving out features that no other is correlated with
// changes nothing for those that stay. s makes C about as large as a down projection.
//
// That is M²/2 + 3·M·D numbers for the largest width M, however many widths there are.
//
// Shape letters: D hidden, M the largest width, w a width.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/model/ffn_order.h"
#include "puzzle/model/weights.h"

namespace puzzle {

struct NestedFfn {
  FfnWeights whole;  // of width M; its `down` is C, so it is no FFN by itself where K is defined
  at::Tensor basis;  // K, its rows up to the diagonal one after another, [M·(M + 1) / 2];
                     // undefined: the identity, down_w is a prefix

  [[nodiscard]] std::int64_t width() const { return whole.spec.width; }
};

// The first `width` channels of an order with their refits. C and K are fp32 where the ridge is
// large enough that their rounding does not show, else fp64.
[[nodiscard]] NestedFfn nest_ffn(const FfnWeights& parent, const FfnOrder& order,
                                 std::int64_t width);

// The same with C and K in the numeric type of gate, as training wants them.
[[nodiscard]] NestedFfn in_one_type(const NestedFfn& nested);

// The same weights on `device`: themselves where they are there already.
[[nodiscard]] NestedFfn on_device(const NestedFfn& nested, const c10::Device& device);

// The FFN of one width, in the numeric type of its norm; gate and up share memory with `nested`.
[[nodiscard]] FfnWeights ffn_of_width(const NestedFfn& nested, std::int64_t width);
// The same on `device`, where its down projection is made; what other widths need stays behind.
[[nodiscard]] FfnWeights ffn_of_width(const NestedFfn& nested, std::int64_t width,
                                      const c10::Device& device);

// Outputs of several widths from one set of activations: z is computed once, and each width adds
// the product of the channels that it has more than the one before.
class NestedForward {
 public:
  explicit NestedForward(NestedFfn nested);  // shares its tensors

  // xn [.., D] is the normalised input, `widths` ascend; `take` gets the position in `widths` and
  // the output [.., D], fp32 or, where C is, fp64. Gradients flow into gate, up, biases, C and xn.
  void visit(const at::Tensor& xn, const std::vector<std::int64_t>& widths,
             const std::function<void(std::size_t index, const at::Tensor& y)>& take) const;

 private:
  NestedFfn nested_;
  at::Tensor lower_;  // K as a square, or undefined
};

// The lower triangle [n, n] of its rows one after another, and back; zeros above.
[[nodiscard]] at::Tensor unpack_triangle(const at::Tensor& packed, std::int64_t rows);
[[nodiscard]] at::Tensor pack_triangle(const at::Tensor& lower);

}  // namespace puzzle
