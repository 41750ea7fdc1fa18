#include "puzzle/model/ffn_order.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/log.h"
#include "puzzle/tensor/ridge.h"

namespace puzzle {
namespace {

constexpr std::int64_t kAlivePerGroup = 32;
constexpr double kLeastRaisedLambda = 1e-10;  // after a lambda of 0

// What elimination carries along: all in the order of `alive`.
struct AliveChannels {
  at::Tensor alive_A;     // int64, the parent's channels
  at::Tensor inverse_AA;  // H
  at::Tensor down_DA;     // W
};

// Nothing where rounding has taken the matrix its positive definiteness.
std::optional<at::Tensor> find_cholesky(const at::Tensor& matrix) {
  const auto [lower, info] = at::linalg_cholesky_ex(matrix);
  return info.item<int>() == 0 ? std::optional(lower) : std::nullopt;
}

// Leaves out the channels at positions `gone` and lets the others make up for them. Nothing where H
// is no longer positive definite.
std::optional<AliveChannels> eliminate(const AliveChannels& channels, const at::Tensor& gone) {
  const std::int64_t num_alive = channels.alive_A.size(0);
  at::Tensor is_kept = at::ones({num_alive}, gone.options().dtype(at::kBool));
  is_kept.index_fill_(0, gone, 0);
  const at::Tensor kept = is_kept.nonzero().squeeze(1);

  const at::Tensor gone_rows = channels.inverse_AA.index_select(0, gone);
  const at::Tensor coupling = gone_rows.index_select(1, kept);  // H_rem,keep
  const std::optional<at::Tensor> lower = find_cholesky(gone_rows.index_select(1, gone));
  if (!lower) {
    return std::nullopt;
  }
  const at::Tensor solved = at::cholesky_solve(coupling, *lower);  // (H_rem,rem)⁻¹ H_rem,keep

  AliveChannels next;
  next.alive_A = channels.alive_A.index_select(0, kept);
  next.inverse_AA = channels.inverse_AA.index_select(0, kept).index_select(1, kept);
  next.inverse_AA.addmm_(coupling.t(), solved, 1, -1);
  next.down_DA = channels.down_DA.index_select(1, kept);
  next.down_DA.addmm_(channels.down_DA.index_select(1, gone), solved, 1, -1);
  return next;
}

// int64 [F], survivors first; nothing as in eliminate.
std::optional<at::Tensor> elimination_order(AliveChannels channels) {
  std::vector<at::Tensor> given_up;  // the last group first in the end; each dearest first
  while (channels.alive_A.size(0) > 1) {
    const std::int64_t num_alive = channels.alive_A.size(0);
    const std::int64_t group = std::max<std::int64_t>(1, num_alive / kAlivePerGroup);
    const at::Tensor cost = channels.down_DA.square().sum(0) / channels.inverse_AA.diagonal();
    const at::Tensor gone = std::get<1>(cost.topk(group, 0, /*largest=*/false, /*sorted=*/true));
    given_up.push_back(channels.alive_A.index_select(0, gone).flip(0));
    std::optional<AliveChannels> next = eliminate(channels, gone);
    if (!next) {
      return std::nullopt;
    }
    channels = std::move(*next);
  }
  given_up.push_back(channels.alive_A);
  std::reverse(given_up.begin(), given_up.end());
  return at::cat(given_up);
}

// Nothing where this ridge keeps G positive definite, but not what elimination makes of its
// inverse.
std::optional<FfnOrder> try_order(const at::Tensor& xx_FF, const at::Tensor& down_DF,
                                  const RidgeFactor& factor) {
  const auto options = xx_FF.options().dtype(at::kLong);
  const std::optional<at::Tensor> channels = elimination_order(
      {at::arange(xx_FF.size(0), options), at::cholesky_inverse(factor.lower), down_DF});
  if (!channels) {
    return std::nullopt;
  }
  at::Tensor permuted = xx_FF.index_select(0, *channels).index_select(1, *channels);
  permuted.diagonal().add_(factor.ridge);
  const std::optional<at::Tensor> lower = find_cholesky(permuted);
  if (!lower) {
    return std::nullopt;
  }
  return FfnOrder{.channels = *channels,
                  .lower = *lower,
                  .target = at::mm(lower->t(), down_DF.index_select(1, *channels).t()),
                  .lambda = factor.lambda};
}

}  // namespace

FfnOrder order_ffn_channels(const at::Tensor& xx_FF, const at::Tensor& down_DF, double lambda,
                            const std::string& place) {
  const c10::NoGradGuard no_grad;
  const std::int64_t width = xx_FF.size(0);
  PUZZLE_CHECK(down_DF.size(1) == width, "down projection of {} channels, sums of {}",
               down_DF.size(1), width);
  const at::Tensor down = down_DF.detach().to(xx_FF.device(), at::kDouble);
  for (double tried = lambda;;) {
    const RidgeFactor factor = factor_with_ridge(xx_FF, tried, place);
    if (std::optional<FfnOrder> order = try_order(xx_FF, down, factor)) {
      return std::move(*order);
    }
    // factor_with_ridge ends this: it refuses ridges beyond all reason.
    tried = std::max(10.0 * factor.lambda, kLeastRaisedLambda);
    log_warning("{}: the ridge {} was too small to order the channels of this FFN, raised to {}",
                place, factor.lambda, tried);
  }
}

at::Tensor refit_down(const FfnOrder& order, std::int64_t width) {
  const c10::NoGradGuard no_grad;
  PUZZLE_CHECK(width >= 1 && width <= order.channels.size(0), "width {} of {}", width,
               order.channels.size(0));
  // The kept block of G is L_w·L_wᵀ, and its right-hand side G_w,:·Wᵀ is L_w times the first rows
  // of Lᵀ·Wᵀ: one triangular solve is left.
  const at::Tensor lower = order.lower.narrow(0, 0, width).narrow(1, 0, width);
  return at::linalg_solve_triangular(lower.t(), order.target.narrow(0, 0, width), /*upper=*/true)
      .t()
      .contiguous();
}

}  // namespace puzzle
