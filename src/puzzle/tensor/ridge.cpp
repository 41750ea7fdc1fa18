#include "puzzle/tensor/ridge.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/log.h"

namespace puzzle {
namespace {

// A is symmetric: with 4 row blocks only 10 of 16 blocks are multiplied.
constexpr std::int64_t kGramBlocks = 4;
constexpr double kFirstRaisedLambda = 1e-10;  // after a lambda of 0
constexpr double kLargestLambda = 1e3;

at::Tensor as_rows(const at::Tensor& x) {
  const bool is_double = x.scalar_type() == at::kDouble;
  return x.detach().reshape({-1, x.size(-1)}).to(is_double ? at::kDouble : at::kFloat);
}

std::int64_t gram_block_rows(std::int64_t features) {
  return (features + kGramBlocks - 1) / kGramBlocks;
}

}  // namespace

Gram::Gram(std::int64_t features, std::int64_t targets, const c10::Device& device) {
  const auto options = at::TensorOptions(at::kDouble).device(device);
  upper_ = at::zeros({features, features}, options);
  xy_ = at::zeros({features, targets}, options);
}

void Gram::add(const at::Tensor& x, const at::Tensor& y, const at::Tensor& token_weights) {
  const c10::NoGradGuard no_grad;
  const at::Tensor x_NF = as_rows(x);
  PUZZLE_CHECK(x_NF.size(1) == upper_.size(0), "{} features, expected {}", x_NF.size(1),
               upper_.size(0));
  const at::Tensor weighted_FN =
      (token_weights.defined() ? x_NF * token_weights.reshape({-1, 1}).to(x_NF.scalar_type())
                               : x_NF)
          .t();
  const std::int64_t features = x_NF.size(1);
  const std::int64_t step = gram_block_rows(features);
  for (std::int64_t first = 0; first < features; first += step) {
    const std::int64_t rows = std::min(step, features - first);
    upper_.narrow(0, first, rows)
        .narrow(1, first, features - first)
        .add_(at::mm(weighted_FN.narrow(0, first, rows), x_NF.narrow(1, first, features - first)));
  }
  if (xy_.size(1) > 0) {
    const at::Tensor y_ND = as_rows(y).to(x_NF.scalar_type());
    PUZZLE_CHECK(y_ND.size(0) == x_NF.size(0) && y_ND.size(1) == xy_.size(1),
                 "targets [{}, {}], expected [{}, {}]", y_ND.size(0), y_ND.size(1), x_NF.size(0),
                 xy_.size(1));
    xy_.add_(at::mm(weighted_FN, y_ND));
  }
}

at::Tensor Gram::xx() const {
  const at::Tensor upper = upper_.triu();
  return upper + upper.triu(1).t();
}

void Gram::visit_sums(const std::function<void(at::Tensor& sum)>& visit) {
  visit(upper_);
  if (xy_.size(1) > 0) {
    visit(xy_);
  }
}

RidgeFactor factor_with_ridge(const at::Tensor& xx_FF, double lambda, const std::string& place) {
  const c10::NoGradGuard no_grad;
  const at::Tensor xx = xx_FF.to(at::kDouble);
  const double mean_diagonal = xx.diagonal().mean().item<double>();
  // The sum meets every element: a NaN or infinity anywhere makes it so.
  if (!std::isfinite(xx.sum().item<double>()) || !std::isfinite(mean_diagonal)) {
    fail(ErrorKind::kNumeric,
         "{}: activations of the calibration tokens are not finite; are the parent's weights sound "
         "in this numeric type?",
         place);
  }
  // All features zero: any ridge gives the same answer.
  const double scale = mean_diagonal > 0.0 ? mean_diagonal : 1.0;
  for (double tried = lambda; tried <= kLargestLambda;
       tried = std::max(tried * 10.0, kFirstRaisedLambda)) {
    at::Tensor g = xx.clone();
    g.diagonal().add_(tried * scale);
    const auto [lower, info] = at::linalg_cholesky_ex(g);
    if (info.item<int>() == 0 && std::isfinite(lower.sum().item<double>())) {
      if (tried > lambda) {
        log_warning("{}: the ridge {} was too small for these activations, raised to {}", place,
                    lambda, tried);
      }
      return {lower, tried * scale, tried};
    }
  }
  fail(ErrorKind::kNumeric,
       "{}: the sums over calibration tokens are not positive definite with any ridge up to {}",
       place, kLargestLambda);
}

RidgeFit solve_ridge(const Gram& gram, double lambda, const std::string& place) {
  const c10::NoGradGuard no_grad;
  const RidgeFactor factor = factor_with_ridge(gram.xx(), lambda, place);
  return {at::cholesky_solve(gram.xy(), factor.lower).t().contiguous(), factor.lambda};
}

RidgeFit refit_ridge(const Gram& gram, const at::Tensor& current_DF, double lambda,
                     const std::string& place) {
  const c10::NoGradGuard no_grad;
  const at::Tensor xx = gram.xx();
  const RidgeFactor factor = factor_with_ridge(xx, lambda, place);
  const at::Tensor current_FD = current_DF.detach().to(xx.device(), at::kDouble).t();
  const at::Tensor residual_FD = gram.xy() - at::mm(xx, current_FD);
  return {(current_FD + at::cholesky_solve(residual_FD, factor.lower)).t().contiguous(),
          factor.lambda};
}

}  // namespace puzzle
