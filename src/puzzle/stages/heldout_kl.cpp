#include "puzzle/stages/heldout_kl.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/data/token_batches.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kHeldoutWindows = 8;  // per forward pass

}  // namespace

double heldout_kl(const LoadedModel& parent, const ModelWeights& child, const TokenPart& part,
                  Communicator& communicator) {
  const c10::NoGradGuard no_grad;
  const c10::Device device = parent.weights.embedding.device();
  const IndexRange share = share_of(part.num_windows(), {communicator.rank(), communicator.size()});
  at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (std::int64_t first = share.begin; first < share.end; first += kHeldoutWindows) {
    const TokenBatch batch =
        part.slice(first, std::min(kHeldoutWindows, share.end - first)).to(device);
    const PassContext pass = batch_pass(parent.geometry, batch, parent.weights.embedding);
    const auto head_input = [&](const ModelWeights& model) {
      return HeadInput{final_rows(model, parent.geometry, embed(model, batch.tokens_BT), pass),
                       model.head};
    };
    const HeadInput p = head_input(parent.weights);
    sum += token_losses(&p, head_input(child), {}).kl.to(at::kDouble).sum();
  }
  return communicator.all_reduce_sum(sum.item<double>()) / static_cast<double>(part.num_tokens());
}

}  // namespace puzzle
