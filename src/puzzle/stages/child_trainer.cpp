#include "puzzle/stages/child_trainer.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/tensor/device.h"
#include "puzzle/tensor/head_loss.h"
#include "puzzle/tensor/tensor_file.h"
#include "puzzle/train/checkpointed.h"

namespace puzzle {
namespace {

at::Tensor trainable_copy(const at::Tensor& tensor) {
  return tensor.detach().clone(at::MemoryFormat::Contiguous).set_requires_grad(true);
}

ModelWeights trainable_child(const ModelWeights& child, bool with_embedding) {
  ModelWeights copy = child;
  for (LayerWeights& layer : copy.layers) {
    layer = clone(layer, true);
  }
  copy.final_norm = trainable_copy(child.final_norm);
  if (with_embedding) {
    copy.embedding = trainable_copy(child.embedding);
    copy.head = child.spec.tie_embeddings ? copy.embedding : trainable_copy(child.head);
  }
  return copy;
}

std::vector<NamedParameter> trainable_parameters(const ModelWeights& child) {
  std::vector<NamedParameter> parameters;
  visit_tensors(child, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  if (tensor.requires_grad()) {
                    parameters.push_back({name, tensor});
                  }
                }));
  return parameters;
}

std::vector<at::Tensor> layer_parameters(const LayerWeights& layer) {
  std::vector<at::Tensor> parameters;
  visit_tensors(layer, ConstTensorVisitor([&](const std::string&, const at::Tensor& tensor) {
                  parameters.push_back(tensor);
                }));
  return parameters;
}

at::Tensor flat_tokens(const at::Tensor& x_BTD) { return x_BTD.reshape({-1, x_BTD.size(-1)}); }

}  // namespace

c10::ScalarType compute_type(const DistillChildOptions& options, c10::ScalarType weights,
                             const c10::Device& device) {
  if (options.compute == "float32" || weights != at::kFloat) {
    return weights;
  }
  return options.compute == "bfloat16" ? at::kBFloat16 : fastest_type(device);
}

ChildTrainer::ChildTrainer(const LoadedModel& parent, const ModelWeights& child,
                           const DistillChildOptions& options)
    : parent_(parent),
      options_(options),
      type_(compute_type(options, parent.weights.embedding.scalar_type(),
                         parent.weights.embedding.device())),
      parent_head_(parent.weights.head.to(type_)),
      child_(trainable_child(child, options.train == "all")),
      optimizer_(trainable_parameters(child_), options.adamw) {
  if (!child_.head.requires_grad()) {
    child_head_ =
        at::equal(child_.head, parent.weights.head) ? parent_head_ : child_.head.to(type_);
  }
  for (const LayerWeights& layer : parent.weights.layers) {
    parent_layers_.push_back(with_matrices_in(layer, type_));
  }
}

at::Tensor ChildTrainer::apply_parent(std::size_t layer, const at::Tensor& x_BTD,
                                      const PassContext& pass) const {
  const c10::NoGradGuard no_grad;
  return apply_layer(parent_layers_[layer], parent_.geometry, x_BTD, pass);
}

at::Tensor ChildTrainer::apply_child(std::size_t layer, const at::Tensor& x_BTD,
                                     const PassContext& pass) const {
  // Called again in the backward pass where checkpointed, so it owns what it uses.
  const auto run = [weights = child_.layers[layer], type = type_, pass,
                    geometry = parent_.geometry](const at::Tensor& x) {
    return apply_layer(with_matrices_in(weights, type), geometry, x, pass);
  };
  return options_.checkpoint_layers
             ? checkpointed(run, x_BTD, layer_parameters(child_.layers[layer]))
             : run(x_BTD);
}

at::Tensor ChildTrainer::loss(const TokenBatch& batch, StepLosses& parts) const {
  at::Tensor parent_x;
  PassContext pass;
  {
    const c10::NoGradGuard no_grad;
    parent_x = embed(parent_.weights, batch.tokens_BT);
    pass = batch_pass(parent_.geometry, batch, type_, parent_x.device());
  }
  at::Tensor child_x = embed(child_, batch.tokens_BT);
  at::Tensor cosine_sum = at::zeros({}, child_x.options().dtype(at::kFloat));
  const bool asks_parent = options_.cosine_weight > 0.0 || options_.kl_weight > 0.0;
  for (std::size_t i = 0; i < child_.layers.size(); ++i) {
    if (asks_parent) {
      parent_x = apply_parent(i, parent_x, pass);
    }
    child_x = apply_child(i, child_x, pass);
    if (options_.cosine_weight > 0.0) {
      cosine_sum = cosine_sum + (1 - at::cosine_similarity(child_x, parent_x, -1)).mean();
    }
  }
  if (options_.cosine_over == "mean") {
    cosine_sum = cosine_sum / static_cast<double>(child_.layers.size());
  }
  at::Tensor total = cosine_sum * options_.cosine_weight;
  parts.kl = at::zeros_like(cosine_sum);
  if (options_.kl_weight > 0.0 || options_.lm_weight > 0.0) {
    at::Tensor parent_hidden;
    {
      const c10::NoGradGuard no_grad;
      parent_hidden = flat_tokens(final_hidden(parent_.weights, parent_x));
    }
    const at::Tensor child_head = child_head_.defined() ? child_head_ : child_.head.to(type_);
    total = total + head_loss({parent_hidden, parent_head_},
                              {flat_tokens(final_hidden(child_, child_x)), child_head},
                              batch.labels_BT.reshape({-1}),
                              {.kl = options_.kl_weight, .lm = options_.lm_weight}, &parts.kl);
  }
  parts.total = total.detach();
  return total;
}

StepLosses ChildTrainer::add_gradients(const TokenBatch& batch, double weight) {
  StepLosses parts;
  const at::Tensor total = loss(batch.to(parent_.weights.embedding.device()), parts);
  (total * weight).backward();
  parts.total = parts.total * weight;
  parts.kl = parts.kl * weight;
  return parts;
}

void ChildTrainer::update(Communicator& communicator, double learning_rate) {
  if (communicator.size() > 1) {
    for (const NamedParameter& parameter : optimizer_.parameters()) {
      at::Tensor tensor = parameter.tensor;
      at::Tensor gradient = tensor.grad().defined() ? tensor.grad() : at::zeros_like(tensor);
      communicator.all_reduce_sum(gradient);
      tensor.mutable_grad() = gradient;
    }
  }
  (void)optimizer_.step(learning_rate);
  optimizer_.zero_grad();
}

void ChildTrainer::save_state(const std::filesystem::path& file,
                              const std::map<std::string, std::string>& metadata) const {
  std::vector<TensorToWrite> tensors;
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    tensors.push_back(tensor_to_write("weight/" + parameter.name, parameter.tensor));
  }
  for (const auto& [name, tensor] : optimizer_.state()) {
    tensors.push_back(tensor_to_write(name, tensor));
  }
  std::map<std::string, std::string> all = metadata;
  all["optimizer_steps"] = fmt::format("{}", optimizer_.steps_taken());
  write_safetensors(file, std::move(tensors), all);
}

std::map<std::string, std::string> ChildTrainer::load_state(const std::filesystem::path& file,
                                                            std::int64_t* steps) {
  const c10::NoGradGuard no_grad;
  const SafetensorsFile stored(file);
  const auto step_entry = stored.metadata().find("optimizer_steps");
  if (step_entry == stored.metadata().end()) {
    fail(ErrorKind::kFormat, "{}: is no training state", file.string());
  }
  *steps = std::stoll(step_entry->second);
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    at::Tensor tensor = parameter.tensor;
    tensor.copy_(read_tensor_like(stored, "weight/" + parameter.name, tensor));
  }
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : optimizer_.state()) {
    state[name] = read_tensor_like(stored, name, tensor);
  }
  optimizer_.load_state(state, *steps);
  return stored.metadata();
}

void ChildTrainer::save_weights(const std::filesystem::path& file) const {
  std::vector<TensorToWrite> tensors;
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    tensors.push_back(tensor_to_write(parameter.name, parameter.tensor));
  }
  write_safetensors(file, std::move(tensors), {});
}

void ChildTrainer::load_weights(const std::filesystem::path& file) {
  const c10::NoGradGuard no_grad;
  const SafetensorsFile stored(file);
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    at::Tensor tensor = parameter.tensor;
    tensor.copy_(read_tensor_like(stored, parameter.name, tensor));
  }
}

}  // namespace puzzle
