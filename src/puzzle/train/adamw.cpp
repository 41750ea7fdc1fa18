#include "puzzle/train/adamw.h"

#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/options.h"

namespace puzzle {
namespace {

std::vector<at::Tensor> gather_group(const std::vector<at::Tensor>& all,
                                     const std::vector<std::size_t>& group) {
  std::vector<at::Tensor> chosen;
  chosen.reserve(group.size());
  for (const std::size_t index : group) {
    chosen.push_back(all[index]);
  }
  return chosen;
}

void copy_state(const std::map<std::string, at::Tensor>& state, const std::string& name,
                at::Tensor& target) {
  const auto found = state.find(name);
  if (found == state.end() || found->second.sizes() != target.sizes()) {
    fail(ErrorKind::kFormat,
         "optimiser state: {} is missing or has another shape; is it of another run?", name);
  }
  target.copy_(found->second);
}

}  // namespace

void AdamWOptions::visit(OptionList& list) {
  list.add("learning_rate", learning_rate, Range<double>{0.0, 1.0}, "Peak learning rate.");
  visit_update(list);
}

void AdamWOptions::visit_update(OptionList& list) {
  const Range<double> decay{0.0, 0.9999999};  // at 1 the moments' bias is corrected by 1/0
  list.add("beta1", beta1, decay, "Decay of the first moment.");
  list.add("beta2", beta2, decay, "Decay of the second moment.");
  list.add("eps", eps, Range<double>{0.0, 1.0}, "Added to the root of the second moment.");
  list.add("weight_decay", weight_decay, Range<double>{0.0, 10.0},
           "Decoupled weight decay of matrices; norms and biases have none.");
  list.add("clip_norm", clip_norm, Range<double>{0.0, 1e9},
           "Largest norm of all gradients together; 0 turns clipping off.");
}

AdamW::AdamW(std::vector<NamedParameter> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& tensor = parameters_[i].tensor;
    PUZZLE_CHECK(tensor.requires_grad() && tensor.is_leaf() && tensor.scalar_type() == at::kFloat,
                 "{} is no trainable fp32 leaf", parameters_[i].name);
    exp_avg_.push_back(at::zeros_like(tensor));
    exp_avg_sq_.push_back(at::zeros_like(tensor));
    step_counts_.push_back(at::zeros({}, tensor.options()));
    (tensor.dim() >= 2 ? decayed_ : not_decayed_).push_back(i);
  }
}

at::Tensor AdamW::step(double learning_rate) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (NamedParameter& parameter : parameters_) {
    if (!parameter.tensor.grad().defined()) {
      parameter.tensor.mutable_grad() = at::zeros_like(parameter.tensor);
    }
    gradients.push_back(parameter.tensor.grad());
  }
  at::Tensor norm;
  if (!gradients.empty()) {
    norm = at::stack(at::_foreach_norm(gradients, 2)).norm();
    if (options_.clip_norm > 0.0) {
      const at::Tensor scale = (options_.clip_norm / (norm + 1e-6)).clamp_max(1.0);
      at::_foreach_mul_(gradients, scale);
    }
    update_group(decayed_, learning_rate, options_.weight_decay);
    update_group(not_decayed_, learning_rate, 0.0);
  }
  ++steps_taken_;
  return norm;
}

void AdamW::update_group(const std::vector<std::size_t>& group, double learning_rate,
                         double weight_decay) {
  if (group.empty()) {
    return;
  }
  std::vector<at::Tensor> tensors;
  std::vector<at::Tensor> gradients;
  for (const std::size_t index : group) {
    tensors.push_back(parameters_[index].tensor);
    gradients.push_back(parameters_[index].tensor.grad());
    step_counts_[index].fill_(static_cast<double>(steps_taken_ + 1));  // of this very update
  }
  at::_fused_adamw_(tensors, gradients, gather_group(exp_avg_, group),
                    gather_group(exp_avg_sq_, group), {}, gather_group(step_counts_, group),
                    learning_rate, options_.beta1, options_.beta2, weight_decay, options_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

void AdamW::zero_grad() {
  for (NamedParameter& parameter : parameters_) {
    parameter.tensor.mutable_grad() = at::Tensor();
  }
}

std::map<std::string, at::Tensor> AdamW::state() const {
  std::map<std::string, at::Tensor> state;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    state["exp_avg/" + parameters_[i].name] = exp_avg_[i];
    state["exp_avg_sq/" + parameters_[i].name] = exp_avg_sq_[i];
  }
  return state;
}

void AdamW::load_state(const std::map<std::string, at::Tensor>& state, std::int64_t steps) {
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    copy_state(state, "exp_avg/" + parameters_[i].name, exp_avg_[i]);
    copy_state(state, "exp_avg_sq/" + parameters_[i].name, exp_avg_sq_[i]);
    step_counts_[i].fill_(static_cast<double>(steps));
  }
  steps_taken_ = steps;
}

}  // namespace puzzle
