#include "puzzle/stages/heldout_kl.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/stages/batch_forward.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kHeldoutWindows = 8;  // per forward pass

at::Tensor final_states(const LoadedModel& parent, const ModelWeights& model,
                        const TokenBatch& batch) {
  return final_rows(model, parent.geometry, embed(model, batch.tokens_BT),
                    batch_pass(parent.geometry, batch, parent.weights.embedding));
}

}  // namespace

HeldoutMeter::HeldoutMeter(const LoadedModel& parent, const TokenPart& part,
                           Communicator& communicator)
    : parent_(parent), communicator_(communicator), num_tokens_(part.num_tokens()) {
  const c10::NoGradGuard no_grad;
  const IndexRange share = share_of(part.num_windows(), {communicator.rank(), communicator.size()});
  for (std::int64_t first = share.begin; first < share.end; first += kHeldoutWindows) {
    const TokenBatch tokens = part.slice(first, std::min(kHeldoutWindows, share.end - first))
                                  .to(parent.weights.embedding.device());
    batches_.push_back({tokens, final_states(parent, parent.weights, tokens)});
  }
}

double HeldoutMeter::kl(const ModelWeights& child) const {
  const c10::NoGradGuard no_grad;
  double sum = 0.0;
  for (const Batch& batch : batches_) {
    const HeadInput p{batch.parent_final_ND, parent_.weights.head};
    const HeadInput q{final_states(parent_, child, batch.tokens), child.head};
    sum += token_losses(&p, q, {}).kl.sum(at::kDouble).item<double>();
  }
  return communicator_.all_reduce_sum(sum) / static_cast<double>(num_tokens_);
}

}  // namespace puzzle
