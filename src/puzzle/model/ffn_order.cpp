#include "puzzle/model/ffn_order.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/tensor/ridge.h"

namespace puzzle {
namespace {

constexpr std::int64_t kAlivePerGroup = 32;

// What elimination carries along: all in the order of `alive`.
struct AliveChannels {
  at::Tensor alive_A;     // int64, the parent's channels
  at::Tensor inverse_AA;  // H
  at::Tensor down_DA;     // W
};

at::Tensor checked_cholesky(const at::Tensor& matrix, const std::string& place) {
  const auto [lower, info] = at::linalg_cholesky_ex(matrix);
  if (info.item<int>() != 0) {
    fail(ErrorKind::kNumeric,
         "{}: the sums over FFN channels lose their positive definiteness while channels are "
         "ordered; raise init_library.lambda",
         place);
  }
  return lower;
}

// Leaves out the channels at positions `gone` and lets the others make up for them.
AliveChannels eliminate(const AliveChannels& channels, const at::Tensor& gone,
                        const std::string& place) {
  const std::int64_t num_alive = channels.alive_A.size(0);
  at::Tensor is_kept = at::ones({num_alive}, gone.options().dtype(at::kBool));
  is_kept.index_fill_(0, gone, 0);
  const at::Tensor kept = is_kept.nonzero().squeeze(1);

  const at::Tensor gone_rows = channels.inverse_AA.index_select(0, gone);
  const at::Tensor coupling = gone_rows.index_select(1, kept);  // H_rem,keep
  const at::Tensor lower = checked_cholesky(gone_rows.index_select(1, gone), place);
  const at::Tensor solved = at::cholesky_solve(coupling, lower);  // (H_rem,rem)⁻¹ H_rem,keep

  AliveChannels next;
  next.alive_A = channels.alive_A.index_select(0, kept);
  next.inverse_AA = channels.inverse_AA.index_select(0, kept).index_select(1, kept);
  next.inverse_AA.addmm_(coupling.t(), solved, 1, -1);
  next.down_DA = channels.down_DA.index_select(1, kept);
  next.down_DA.addmm_(channels.down_DA.index_select(1, gone), solved, 1, -1);
  return next;
}

// int64 [F], survivors first.
at::Tensor elimination_order(AliveChannels channels, const std::string& place) {
  std::vector<at::Tensor> given_up;  // the last group first in the end; each dearest first
  while (channels.alive_A.size(0) > 1) {
    const std::int64_t num_alive = channels.alive_A.size(0);
    const std::int64_t group = std::max<std::int64_t>(1, num_alive / kAlivePerGroup);
    const at::Tensor cost = channels.down_DA.square().sum(0) / channels.inverse_AA.diagonal();
    const at::Tensor gone = std::get<1>(cost.topk(group, 0, /*largest=*/false, /*sorted=*/true));
    given_up.push_back(channels.alive_A.index_select(0, gone).flip(0));
    channels = eliminate(channels, gone, place);
  }
  given_up.push_back(channels.alive_A);
  std::reverse(given_up.begin(), given_up.end());
  return at::cat(given_up);
}

}  // namespace

FfnOrder order_ffn_channels(const at::Tensor& xx_FF, const at::Tensor& down_DF, double lambda,
                            const std::string& place) {
  const c10::NoGradGuard no_grad;
  const std::int64_t width = xx_FF.size(0);
  PUZZLE_CHECK(down_DF.size(1) == width, "down projection of {} channels, sums of {}",
               down_DF.size(1), width);
  const at::Tensor down = down_DF.detach().to(xx_FF.device(), at::kDouble);
  const RidgeFactor factor = factor_with_ridge(xx_FF, lambda, place);

  FfnOrder order;
  order.lambda = factor.lambda;
  order.channels = elimination_order({at::arange(width, xx_FF.options().dtype(at::kLong)),
                                      at::cholesky_inverse(factor.lower), down},
                                     place);
  at::Tensor permuted = xx_FF.index_select(0, order.channels).index_select(1, order.channels);
  permuted.diagonal().add_(factor.ridge);
  order.lower = checked_cholesky(permuted, place);
  order.target = at::mm(order.lower.t(), down.index_select(1, order.channels).t());
  return order;
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
