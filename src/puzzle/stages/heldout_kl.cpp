#include "puzzle/stages/heldout_kl.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/data/token_batches.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kHeldoutWindows = 8;  // per forward pass

}  // namespace

std::vector<double> heldout_kl_sums(const LoadedModel& parent, const ModelWeights& child,
                                    const TokenPart& part, Communicator& communicator) {
  const c10::NoGradGuard no_grad;
  const c10::Device device = parent.weights.embedding.device();
  const WindowUnits units = independent_units(part);
  const IndexRange share = share_of(part.num_windows(), {communicator.rank(), communicator.size()});
  std::vector<double> sums(static_cast<std::size_t>(units.count), 0.0);
  for (std::int64_t first = share.begin; first < share.end; first += kHeldoutWindows) {
    const std::int64_t count = std::min(kHeldoutWindows, share.end - first);
    const TokenBatch batch = part.slice(first, count).to(device);
    const PassContext pass = batch_pass(parent.geometry, batch, parent.weights.embedding);
    const auto head_input = [&](const ModelWeights& model) {
      return HeadInput{final_rows(model, parent.geometry, embed(model, batch.tokens_BT), pass),
                       model.head};
    };
    const HeadInput p = head_input(parent.weights);
    const at::Tensor kl_B = token_losses(&p, head_input(child), {})
                                .kl.view({count, -1})
                                .sum(-1, /*keepdim=*/false, at::kDouble)
                                .to(at::kCPU);
    for (std::int64_t w = 0; w < count; ++w) {
      const std::int64_t unit = units.unit_of_window[static_cast<std::size_t>(first + w)];
      sums[static_cast<std::size_t>(unit)] += kl_B.const_data_ptr<double>()[w];
    }
  }
  sum_over_ranks(sums, communicator);
  return sums;
}

std::vector<double> unit_tokens(const TokenPart& part) {
  const WindowUnits units = independent_units(part);
  std::vector<double> tokens(static_cast<std::size_t>(units.count), 0.0);
  for (const std::int64_t unit : units.unit_of_window) {
    tokens[static_cast<std::size_t>(unit)] += static_cast<double>(part.window());
  }
  return tokens;
}

double heldout_kl(const LoadedModel& parent, const ModelWeights& child, const TokenPart& part,
                  Communicator& communicator) {
  const std::vector<double> sums = heldout_kl_sums(parent, child, part, communicator);
  return std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(part.num_tokens());
}

}  // namespace puzzle
