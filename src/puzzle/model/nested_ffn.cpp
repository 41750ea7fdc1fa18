#include "puzzle/model/nested_ffn.h"

#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/model/decoder.h"
#include "puzzle/model/initialize.h"

namespace puzzle {
namespace {

// Rounding K to fp32 moves a down projection by about 2⁻²⁴·cond(L), as its outputs see it. G's
// condition is at most F / λ, so from this ridge on that is below 1 % of the parent's output for
// any F met in practice, and some 1e-4 at the default ridge.
constexpr double kLeastRidgeForFloat = 1e-6;

std::int64_t triangle_size(std::int64_t rows) { return rows * (rows + 1) / 2; }

at::Tensor prefix(const at::Tensor& rows, std::int64_t width) {
  return rows.defined() ? rows.narrow(0, 0, width) : rows;
}

void require_ascending(const std::vector<std::int64_t>& widths, std::int64_t largest) {
  std::int64_t last = 0;
  for (const std::int64_t width : widths) {
    PUZZLE_CHECK(width > last && width <= largest, "width {} after {} of at most {}", width, last,
                 largest);
    last = width;
  }
}

}  // namespace

at::Tensor unpack_triangle(const at::Tensor& packed, std::int64_t rows) {
  PUZZLE_CHECK(packed.dim() == 1 && packed.size(0) == triangle_size(rows),
               "a triangle of {} rows from {} elements", rows, packed.numel());
  at::Tensor lower = at::zeros({rows, rows}, packed.options());
  const at::Tensor is_below = at::ones({rows, rows}, packed.options().dtype(at::kBool)).tril();
  return lower.masked_scatter_(is_below, packed);
}

at::Tensor pack_triangle(const at::Tensor& lower) {
  return lower.masked_select(at::ones_like(lower, lower.options().dtype(at::kBool)).tril());
}

NestedFfn nest_ffn(const FfnWeights& parent, const FfnOrder& order, std::int64_t width) {
  const c10::NoGradGuard no_grad;
  PUZZLE_CHECK(width >= 1 && width <= order.channels.size(0), "width {} of {}", width,
               order.channels.size(0));
  const at::Tensor lower = order.lower.narrow(0, 0, width).narrow(1, 0, width);
  const at::Tensor inverse =
      at::linalg_solve_triangular(lower, at::eye(width, lower.options()), /*upper=*/false);
  const at::Tensor coefficients = order.target.narrow(0, 0, width);
  const at::Tensor down = refit_down(order, width);
  const double scale = (coefficients.norm() / down.norm().clamp_min(1e-300)).item<double>();
  const double positive_scale = scale > 0.0 ? scale : 1.0;  // a down projection of zeros
  const auto type = order.lambda >= kLeastRidgeForFloat ? at::kFloat : at::kDouble;
  NestedFfn nested;
  nested.whole = keep_channels(parent, order.channels.narrow(0, 0, width), down);
  nested.whole.down = (coefficients.t() / positive_scale).to(type).contiguous();
  nested.basis = pack_triangle(inverse * positive_scale).to(type);
  return nested;
}

NestedFfn in_one_type(const NestedFfn& nested) {
  NestedFfn same = nested;
  const auto type = nested.whole.gate.scalar_type();
  same.whole.down = nested.whole.down.to(type);
  if (nested.basis.defined()) {
    same.basis = nested.basis.to(type);
  }
  return same;
}

NestedFfn on_device(const NestedFfn& nested, const c10::Device& device) {
  return {on_device(nested.whole, device),
          nested.basis.defined() ? nested.basis.to(device) : nested.basis};
}

FfnWeights ffn_of_width(const NestedFfn& nested, std::int64_t width) {
  return ffn_of_width(nested, width, nested.whole.gate.device());
}

FfnWeights ffn_of_width(const NestedFfn& nested, std::int64_t width, const c10::Device& device) {
  const c10::NoGradGuard no_grad;
  PUZZLE_CHECK(width >= 1 && width <= nested.width(), "width {} of {}", width, nested.width());
  FfnWeights weights = nested.whole;
  weights.spec = FfnSpec::swiglu(width);
  for (at::Tensor* rows : {&weights.gate, &weights.up, &weights.gate_bias, &weights.up_bias}) {
    *rows = prefix(*rows, width);
  }
  weights.down = nested.whole.down.narrow(1, 0, width);
  weights = on_device(weights, device);
  at::Tensor down = weights.down;
  if (nested.basis.defined()) {
    const at::Tensor rows = prefix(nested.basis, triangle_size(width)).to(device);
    down = at::mm(down, unpack_triangle(rows, width));
  }
  weights.down = down.to(weights.norm.scalar_type()).contiguous();
  return weights;
}

NestedForward::NestedForward(NestedFfn nested) : nested_(std::move(nested)) {
  if (nested_.basis.defined()) {
    const c10::NoGradGuard no_grad;
    lower_ = unpack_triangle(nested_.basis, nested_.width());
  }
}

void NestedForward::visit(
    const at::Tensor& xn, const std::vector<std::int64_t>& widths,
    const std::function<void(std::size_t index, const at::Tensor& y)>& take) const {
  require_ascending(widths, nested_.width());
  if (widths.empty()) {
    return;
  }
  const std::int64_t largest = widths.back();
  FfnWeights rows = nested_.whole;
  for (at::Tensor* part : {&rows.gate, &rows.up, &rows.gate_bias, &rows.up_bias}) {
    *part = prefix(*part, largest);
  }
  const auto type = nested_.whole.down.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor coefficients = nested_.whole.down.to(type);
  at::Tensor z = ffn_features(rows, xn).to(type);
  if (lower_.defined()) {
    z = at::linear(z, lower_.narrow(0, 0, largest).narrow(1, 0, largest));
  }
  at::Tensor y;
  std::int64_t done = 0;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const at::Tensor more = at::linear(z.narrow(-1, done, widths[i] - done),
                                       coefficients.narrow(1, done, widths[i] - done));
    y = y.defined() ? y + more : more;
    done = widths[i];
    take(i, rows.down_bias.defined() ? y + rows.down_bias : y);
  }
}

}  // namespace puzzle
