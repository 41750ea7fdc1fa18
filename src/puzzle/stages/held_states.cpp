#include "puzzle/stages/held_states.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"

namespace puzzle {

HeldStates::HeldStates(const LoadedModel& model, const TokenPart& part, RankShare share,
                       std::int64_t batch_tokens)
    : geometry_(model.geometry),
      share_(share_of(part.num_windows(), share)),
      batch_windows_(std::max<std::int64_t>(1, batch_tokens / part.window())) {
  const c10::NoGradGuard no_grad;
  const at::Tensor& embedding = model.weights.embedding;
  angles_ = make_pass(geometry_, part.window(), embedding.scalar_type(), embedding.device()).angles;
  for (std::int64_t first = share_.begin; first < share_.end; first += batch_windows_) {
    const TokenBatch tokens = part.slice(first, std::min(batch_windows_, share_.end - first));
    Batch batch;
    batch.states_BTD = embed(model.weights, tokens.tokens_BT);
    if (tokens.attention_mask().defined()) {
      batch.document_ids_BT = tokens.document_ids_BT.to(embedding.device());
    }
    batches_.push_back(std::move(batch));
  }
}

std::int64_t HeldStates::num_windows(std::int64_t batch) const { return states(batch).size(0); }

const at::Tensor& HeldStates::states(std::int64_t batch) const {
  return batches_[static_cast<std::size_t>(batch)].states_BTD;
}

void HeldStates::replace(std::int64_t batch, at::Tensor states_BTD) {
  at::Tensor& held = batches_[static_cast<std::size_t>(batch)].states_BTD;
  PUZZLE_CHECK(states_BTD.sizes() == held.sizes(), "batch {}: states of another shape", batch);
  held = std::move(states_BTD);
}

PassContext HeldStates::pass(std::int64_t batch) const {
  const at::Tensor& documents = batches_[static_cast<std::size_t>(batch)].document_ids_BT;
  return {angles_, documents.defined() ? make_document_mask(documents) : at::Tensor()};
}

void HeldStates::advance(std::int64_t batch, const LayerWeights& layer) {
  const c10::NoGradGuard no_grad;
  replace(batch, apply_layer(layer, geometry_, states(batch), pass(batch)));
}

void HeldStates::advance(const LayerWeights& layer) {
  for (std::int64_t batch = 0; batch < num_batches(); ++batch) {
    advance(batch, layer);
  }
}

std::vector<float> HeldStates::sampled_norms(const LayerWeights& layer, std::int64_t stride) const {
  const c10::NoGradGuard no_grad;
  std::vector<float> norms;
  std::int64_t window = share_.begin;
  for (std::int64_t i = 0; i < num_batches(); ++i) {
    const Batch& batch = batches_[static_cast<std::size_t>(i)];
    const std::int64_t first = (stride - window % stride) % stride;
    window += num_windows(i);
    if (first >= num_windows(i)) {
      continue;
    }
    const at::Tensor x = batch.states_BTD.slice(0, first, std::nullopt, stride);
    const at::Tensor documents = batch.document_ids_BT.defined()
                                     ? batch.document_ids_BT.slice(0, first, std::nullopt, stride)
                                     : at::Tensor();
    const PassContext pass{angles_,
                           documents.defined() ? make_document_mask(documents) : at::Tensor()};
    const at::Tensor squared =
        squared_norms(apply_layer(layer, geometry_, x, pass)).flatten().to(at::kCPU).contiguous();
    const float* values = squared.const_data_ptr<float>();
    norms.insert(norms.end(), values, values + squared.numel());
  }
  return norms;
}

at::Tensor squared_norms(const at::Tensor& x) { return x.detach().to(at::kFloat).square().sum(-1); }

}  // namespace puzzle
