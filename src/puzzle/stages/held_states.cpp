#include "puzzle/stages/held_states.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/tensor/convert.h"

namespace puzzle {

HeldStates::HeldStates(const LoadedModel& model, const TokenPart& part, RankShare share,
                       std::int64_t batch_tokens, const StateMemory& memory)
    : geometry_(model.geometry),
      part_(part),
      share_(share_of(part.num_windows(), share)),
      options_(model.weights.embedding.options().requires_grad(false)),
      hidden_size_(model.weights.spec.hidden_size),
      batch_windows_(std::max<std::int64_t>(1, batch_tokens / part.window())) {
  const c10::NoGradGuard no_grad;
  const at::Tensor& embedding = model.weights.embedding;
  angles_ = make_pass(geometry_, part.window(), embedding.scalar_type(), embedding.device()).angles;
  batch_windows_ = std::max<std::int64_t>(1, std::min(batch_windows_, num_windows()));
  num_batches_ = (num_windows() + batch_windows_ - 1) / batch_windows_;
  batch_bytes_ = batch_windows_ * part.window() * hidden_size_ *
                 static_cast<std::int64_t>(embedding.element_size());
  const std::int64_t num_in_memory = std::min(num_batches_, memory.bytes / batch_bytes_);
  if (num_in_memory < num_batches_) {
    spilled_ = std::make_unique<SpillFile>(
        memory.spill_folder, (num_batches_ - num_in_memory) * batch_bytes_,
        fmt::format("hidden states of the part {} ({} tokens)", part.name(), part.num_tokens()));
  }
  in_memory_.resize(static_cast<std::size_t>(num_in_memory));
  for (std::int64_t batch = 0; batch < num_batches_; ++batch) {
    replace(batch, embed(model.weights, tokens(batch).tokens_BT));
  }
}

std::int64_t HeldStates::num_windows(std::int64_t batch) const {
  return std::min(batch_windows_, num_windows() - batch * batch_windows_);
}

std::int64_t HeldStates::memory_bytes() const { return std::ssize(in_memory_) * batch_bytes_; }

std::vector<std::int64_t> HeldStates::batch_shape(std::int64_t batch) const {
  return {num_windows(batch), part_.window(), hidden_size_};
}

TokenBatch HeldStates::tokens(std::int64_t batch) const {
  return part_.slice(share_.begin + batch * batch_windows_, num_windows(batch))
      .to(options_.device());
}

std::int64_t HeldStates::spill_offset(std::int64_t batch) const {
  return (batch - std::ssize(in_memory_)) * batch_bytes_;
}

at::Tensor HeldStates::states(std::int64_t batch) const {
  if (batch < std::ssize(in_memory_)) {
    return in_memory_[static_cast<std::size_t>(batch)];
  }
  const at::Tensor host = at::empty(batch_shape(batch), options_.device(at::kCPU));
  spilled_->read(spill_offset(batch), {static_cast<std::byte*>(host.mutable_data_ptr()),
                                       static_cast<std::size_t>(host.nbytes())});
  return host.to(options_.device());
}

void HeldStates::replace(std::int64_t batch, const at::Tensor& states_BTD) {
  PUZZLE_CHECK(states_BTD.sizes() == at::IntArrayRef(batch_shape(batch)),
               "batch {}: states of another shape", batch);
  if (batch < std::ssize(in_memory_)) {
    in_memory_[static_cast<std::size_t>(batch)] = states_BTD;
    return;
  }
  const at::Tensor host = states_BTD.detach().to(at::kCPU).contiguous();
  spilled_->write(spill_offset(batch), tensor_bytes(host));
}

PassContext HeldStates::pass(std::int64_t batch) const {
  return {angles_, part_.crosses_documents() ? at::Tensor() : tokens(batch).attention_mask()};
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
    const std::int64_t first = (stride - window % stride) % stride;
    window += num_windows(i);
    if (first >= num_windows(i)) {
      continue;
    }
    PassContext sampled = pass(i);
    if (sampled.mask.defined()) {
      sampled.mask = sampled.mask.slice(0, first, std::nullopt, stride);
    }
    const at::Tensor x = states(i).slice(0, first, std::nullopt, stride);
    const at::Tensor squared = squared_norms(apply_layer(layer, geometry_, x, sampled))
                                   .flatten()
                                   .to(at::kCPU)
                                   .contiguous();
    const float* values = squared.const_data_ptr<float>();
    norms.insert(norms.end(), values, values + squared.numel());
  }
  return norms;
}

at::Tensor squared_norms(const at::Tensor& x) { return x.detach().to(at::kFloat).square().sum(-1); }

}  // namespace puzzle
