#include "puzzle/stages/block_loss.h"

#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Keeps a token (or a batch) whose states are all zero from dividing by zero.
constexpr double kSmallestBlockNorm2 = 1e-20;

at::Tensor token_norms2(const at::Tensor& x_BTD) { return x_BTD.square().sum(-1); }

}  // namespace

BlockLoss parse_block_loss(std::string_view name) {
  if (name == "mse") {
    return BlockLoss::kMse;
  }
  if (name == "token-mse") {
    return BlockLoss::kTokenMse;
  }
  if (name == "cosine") {
    return BlockLoss::kCosine;
  }
  fail(ErrorKind::kUsage, "distill_blocks.loss: '{}', expected mse, token-mse or cosine", name);
}

BlockTarget::BlockTarget(BlockLoss kind, at::Tensor output_BTD)
    : kind_(kind), output_BTD_(std::move(output_BTD)) {
  const at::Tensor norms2 = token_norms2(output_BTD_).clamp_min(kSmallestBlockNorm2);
  if (kind_ == BlockLoss::kMse) {
    denominator_ = norms2.sum(at::kDouble);
    return;
  }
  token_weights_BT_ = kind_ == BlockLoss::kTokenMse ? norms2.reciprocal() : norms2.rsqrt();
  denominator_ =
      at::full({}, static_cast<double>(norms2.numel()), norms2.options().dtype(at::kDouble));
}

at::Tensor BlockTarget::numerator(const at::Tensor& student_BTD) const {
  if (kind_ == BlockLoss::kCosine) {
    const at::Tensor products = (output_BTD_ * student_BTD).sum(-1);
    const at::Tensor scale = token_norms2(student_BTD).clamp_min(kSmallestBlockNorm2).rsqrt();
    return (1.0 - products * scale * token_weights_BT_).sum(at::kDouble);
  }
  const at::Tensor errors2 = token_norms2(student_BTD - output_BTD_);
  return (kind_ == BlockLoss::kMse ? errors2 : errors2 * token_weights_BT_).sum(at::kDouble);
}

at::Tensor BlockTarget::loss(const at::Tensor& student_BTD) const {
  return numerator(student_BTD) / denominator_;
}

}  // namespace puzzle
