#include "puzzle/stages/child_trainer.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/tensor/convert.h"
#include "puzzle/tensor/head_loss.h"
#include "puzzle/train/checkpointed.h"

namespace puzzle {
namespace {

constexpr std::int64_t kValidationWindows = 8;

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

PassContext batch_pass(const Geometry& geometry, const TokenBatch& batch, const at::Tensor& x_BTD) {
  PassContext pass = make_pass(geometry, x_BTD.size(1), x_BTD.scalar_type(), x_BTD.device());
  pass.mask = batch.attention_mask();
  return pass;
}

at::Tensor stored_tensor(const SafetensorsFile& file, const std::string& name,
                         const at::Tensor& like) {
  const StoredTensor& stored = file.tensor(name);
  if (stored.shape != like.sizes().vec()) {
    fail(ErrorKind::kFormat, "{}: {} has another shape than the child's; is it of another run?",
         file.path().string(), name);
  }
  return tensor_from_bytes(stored.dtype, stored.shape, stored.bytes, stored.file,
                           like.scalar_type(), file.path().string() + ": " + name)
      .to(like.device());
}

}  // namespace

ChildTrainer::ChildTrainer(const LoadedModel& parent, const ModelWeights& child,
                           const DistillChildOptions& options)
    : parent_(parent),
      options_(options),
      child_(trainable_child(child, options.train == "all")),
      optimizer_(trainable_parameters(child_), options.adamw) {}

at::Tensor ChildTrainer::loss(const TokenBatch& batch, StepLosses& parts) const {
  at::Tensor parent_x;
  PassContext pass;
  {
    const c10::NoGradGuard no_grad;
    parent_x = embed(parent_.weights, batch.tokens_BT);
    pass = batch_pass(parent_.geometry, batch, parent_x);
  }
  at::Tensor child_x = embed(child_, batch.tokens_BT);
  at::Tensor cosine_sum = at::zeros({}, child_x.options().dtype(at::kFloat));
  for (std::size_t i = 0; i < child_.layers.size(); ++i) {
    {
      const c10::NoGradGuard no_grad;
      parent_x = apply_layer(parent_.weights.layers[i], parent_.geometry, parent_x, pass);
    }
    const LayerWeights& layer = child_.layers[i];
    const auto run = [&layer, &pass, this](const at::Tensor& x) {
      return apply_layer(layer, parent_.geometry, x, pass);
    };
    // The function may be called again in the backward pass, so it must own what it uses.
    child_x = options_.checkpoint_layers
                  ? checkpointed(
                        [layer, pass, geometry = parent_.geometry](const at::Tensor& x) {
                          return apply_layer(layer, geometry, x, pass);
                        },
                        child_x, layer_parameters(layer))
                  : run(child_x);
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
    total = total + head_loss({parent_hidden, parent_.weights.head},
                              {flat_tokens(final_hidden(child_, child_x)), child_.head},
                              batch.labels_BT.reshape({-1}),
                              {.kl = options_.kl_weight, .lm = options_.lm_weight}, &parts.kl);
  }
  parts.cosine = cosine_sum.detach();
  parts.total = total.detach();
  return total;
}

StepLosses ChildTrainer::add_gradients(const TokenBatch& batch, double weight) {
  StepLosses parts;
  const at::Tensor total = loss(batch.to(parent_.weights.embedding.device()), parts);
  (total * weight).backward();
  parts.total = parts.total * weight;
  parts.kl = parts.kl * weight;
  parts.cosine = parts.cosine * weight;
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

double ChildTrainer::validation_kl(const TokenPart& part, Communicator& communicator) const {
  const c10::NoGradGuard no_grad;
  const IndexRange share = share_of(part.num_windows(), {communicator.rank(), communicator.size()});
  at::Tensor sum = at::zeros({}, parent_.weights.embedding.options().dtype(at::kDouble));
  for (std::int64_t first = share.begin; first < share.end; first += kValidationWindows) {
    const TokenBatch batch = part.slice(first, std::min(kValidationWindows, share.end - first))
                                 .to(parent_.weights.embedding.device());
    const auto hidden = [&](const ModelWeights& model) {
      const at::Tensor x = embed(model, batch.tokens_BT);
      const PassContext pass = batch_pass(parent_.geometry, batch, x);
      return flat_tokens(final_hidden(
          model, apply_layers(model, parent_.geometry, x, pass, 0, model.spec.num_layers())));
    };
    const HeadInput parent{hidden(parent_.weights), parent_.weights.head};
    sum += token_losses(&parent, {hidden(child_), child_.head}, {}).kl.to(at::kDouble).sum();
  }
  return communicator.all_reduce_sum(sum.item<double>()) / static_cast<double>(part.num_tokens());
}

void ChildTrainer::save_state(const std::filesystem::path& file,
                              const std::map<std::string, std::string>& metadata) const {
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    TensorToWrite entry;
    entry.name = name;
    entry.dtype = dtype_of(tensor.scalar_type());
    entry.shape = tensor.sizes().vec();
    entry.produce = [tensor](const ByteSink& sink) {
      sink(tensor_bytes(tensor.detach().to(at::kCPU).contiguous()));
    };
    tensors.push_back(std::move(entry));
  };
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    add("weight/" + parameter.name, parameter.tensor);
  }
  for (const auto& [name, tensor] : optimizer_.state()) {
    add(name, tensor);
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
    tensor.copy_(stored_tensor(stored, "weight/" + parameter.name, tensor));
  }
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : optimizer_.state()) {
    state[name] = stored_tensor(stored, name, tensor);
  }
  optimizer_.load_state(state, *steps);
  return stored.metadata();
}

void ChildTrainer::load_weights(const std::filesystem::path& file) {
  const c10::NoGradGuard no_grad;
  const SafetensorsFile stored(file);
  for (const NamedParameter& parameter : optimizer_.parameters()) {
    at::Tensor tensor = parameter.tensor;
    tensor.copy_(stored_tensor(stored, parameter.name, tensor));
  }
}

}  // namespace puzzle
