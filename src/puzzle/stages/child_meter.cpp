#include "puzzle/stages/child_meter.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/interrupt.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/library.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {

ChildMeter::ChildMeter(const LoadedModel& parent, std::filesystem::path library_folder,
                       TokenPart part, RankShare share, ChildMeterOptions options)
    : parent_(parent),
      library_folder_(std::move(library_folder)),
      part_(std::move(part)),
      units_(independent_units(part_)),
      base_(parent.weights) {
  const c10::NoGradGuard no_grad;
  const IndexRange windows = share_of(part_.num_windows(), share);
  const std::int64_t bytes = std::max<std::int64_t>(1, windows.count() * part_.window()) *
                             parent.weights.spec.hidden_size *
                             static_cast<std::int64_t>(parent.weights.embedding.element_size());
  const std::int64_t kept = std::max<std::int64_t>(1, options.state_bytes / bytes);
  stride_ = (num_layers() + kept - 1) / kept;
  for (std::int64_t first = windows.begin; first < windows.end; first += options.batch_windows) {
    Batch batch;
    batch.first_window = first;
    batch.tokens = part_.slice(first, std::min(options.batch_windows, windows.end - first))
                       .to(parent.weights.embedding.device());
    batch.states.resize(static_cast<std::size_t>((num_layers() - 1) / stride_ + 1));
    batch.states[0] = embed(parent.weights, batch.tokens.tokens_BT);
    fill(batch, 0);
    batch.parent_final_ND = final_of(parent.weights, batch, kept_before(num_layers()));
    batches_.push_back(std::move(batch));
  }
}

LayerWeights ChildMeter::block(std::int64_t layer, const BlockSpec& spec) const {
  Architecture layers = parent_.weights.spec.layers;
  layers[static_cast<std::size_t>(layer)] = spec;
  return make_child(parent_.weights, library_folder_, layers)
      .layers[static_cast<std::size_t>(layer)];
}

ModelWeights ChildMeter::child_of(const Architecture& layers) const {
  ModelWeights child = base_;
  child.spec = with_layers(base_.spec, layers);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] != base_.spec.layers[i]) {
      child.layers[i] = block(static_cast<std::int64_t>(i), layers[i]);
    }
  }
  return child;
}

std::int64_t ChildMeter::first_change(const Architecture& layers) const {
  const Architecture& base = base_.spec.layers;
  return std::mismatch(base.begin(), base.end(), layers.begin(), layers.end()).first - base.begin();
}

std::int64_t ChildMeter::kept_before(std::int64_t layer) const {
  return std::min(layer, num_layers() - 1) / stride_;
}

void ChildMeter::fill(Batch& batch, std::int64_t kept) const {
  const PassContext pass = batch_pass(parent_.geometry, batch.tokens, parent_.weights.embedding);
  for (std::int64_t k = kept + 1; k < std::ssize(batch.states); ++k) {
    const auto index = static_cast<std::size_t>(k);
    batch.states[index] = apply_layers(base_, parent_.geometry, batch.states[index - 1], pass,
                                       (k - 1) * stride_, k * stride_);
  }
}

at::Tensor ChildMeter::final_of(const ModelWeights& model, const Batch& batch,
                                std::int64_t kept) const {
  return final_rows(model, parent_.geometry, batch.states[static_cast<std::size_t>(kept)],
                    batch_pass(parent_.geometry, batch.tokens, parent_.weights.embedding),
                    kept * stride_);
}

void ChildMeter::set_base(const Architecture& layers) {
  const c10::NoGradGuard no_grad;
  const std::int64_t first = first_change(layers);
  if (first == num_layers()) {
    return;
  }
  base_ = child_of(layers);
  for (Batch& batch : batches_) {
    fill(batch, kept_before(first));
  }
}

std::vector<std::vector<double>> ChildMeter::unit_sums(
    const std::vector<Architecture>& children) const {
  const c10::NoGradGuard no_grad;
  std::vector<ModelWeights> models;
  for (const Architecture& layers : children) {
    models.push_back(child_of(layers));
  }
  std::vector<std::vector<double>> sums(
      children.size(), std::vector<double>(static_cast<std::size_t>(units_.count)));
  for (const Batch& batch : batches_) {
    std::vector<HeadInput> finals;
    for (std::size_t c = 0; c < children.size(); ++c) {
      throw_if_interrupted();  // one request may take minutes
      finals.push_back(
          {final_of(models[c], batch, kept_before(first_change(children[c]))), models[c].head});
    }
    const HeadInput parent{batch.parent_final_ND, parent_.weights.head};
    const std::vector<TokenLosses> losses = token_losses(&parent, finals, {});
    for (std::size_t c = 0; c < children.size(); ++c) {
      const at::Tensor windows = losses[c]
                                     .kl.to(at::kDouble)
                                     .reshape({batch.tokens.num_windows(), -1})
                                     .sum(-1)
                                     .to(at::kCPU)
                                     .contiguous();
      for (std::int64_t w = 0; w < windows.numel(); ++w) {
        const std::int64_t unit =
            units_.unit_of_window[static_cast<std::size_t>(batch.first_window + w)];
        sums[c][static_cast<std::size_t>(unit)] += windows.const_data_ptr<double>()[w];
      }
    }
  }
  return sums;
}

}  // namespace puzzle
