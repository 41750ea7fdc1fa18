#include "puzzle/stages/heldout_kl.h"

#include <algorithm>
#include <span>

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
    : parent_(parent), communicator_(communicator), units_(independent_units(part)) {
  const c10::NoGradGuard no_grad;
  const IndexRange share = share_of(part.num_windows(), rank_share(communicator));
  for (std::int64_t first = share.begin; first < share.end; first += kHeldoutWindows) {
    const TokenBatch tokens = part.slice(first, std::min(kHeldoutWindows, share.end - first))
                                  .to(parent.weights.embedding.device());
    batches_.push_back({first, tokens, final_states(parent, parent.weights, tokens)});
  }
}

RatioOfSums HeldoutMeter::kl_by_unit(const ModelWeights& child) const {
  const c10::NoGradGuard no_grad;
  RatioOfSums sums(units_.count);
  for (const Batch& batch : batches_) {
    const HeadInput p{batch.parent_final_ND, parent_.weights.head};
    const HeadInput q{final_states(parent_, child, batch.tokens), child.head};
    const at::Tensor kl_N = token_losses(&p, q, {}).kl;
    sums.add_windows(std::span(units_.unit_of_window)
                         .subspan(static_cast<std::size_t>(batch.first_window),
                                  static_cast<std::size_t>(batch.tokens.num_windows())),
                     kl_N, at::ones_like(kl_N, kl_N.options().dtype(at::kBool)));
  }
  return sums;
}

double HeldoutMeter::kl(const ModelWeights& child) const {
  return kl_by_unit(child).result(communicator_).value;
}

}  // namespace puzzle
