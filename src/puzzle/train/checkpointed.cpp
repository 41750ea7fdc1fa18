#include "puzzle/train/checkpointed.h"

#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace puzzle {
namespace {

using LayerFunction = std::function<at::Tensor(const at::Tensor&)>;

struct HeldLayer : torch::CustomClassHolder {
  explicit HeldLayer(LayerFunction f) : function(std::move(f)) {}
  LayerFunction function;
};

// `trigger` requires grad whenever a parameter does, so that the backward pass reaches a first
// layer whose input needs no gradient.
class CheckpointFunction : public torch::autograd::Function<CheckpointFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& /*trigger*/, std::shared_ptr<LayerFunction> layer) {
    context->save_for_backward({x});
    context->saved_data["layer"] =
        c10::IValue::make_capsule(c10::make_intrusive<HeldLayer>(*layer));
    const c10::NoGradGuard no_grad;
    return (*layer)(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const at::Tensor saved = context->get_saved_variables()[0];
    const auto held =
        c10::static_intrusive_pointer_cast<HeldLayer>(context->saved_data["layer"].toCapsule());
    const c10::AutoGradMode grad_on(true);
    const at::Tensor x = saved.detach().set_requires_grad(true);
    const at::Tensor y = held->function(x);
    torch::autograd::backward({y}, {gradients[0]});
    return {x.grad(), {}, {}};
  }
};

}  // namespace

at::Tensor checkpointed(const LayerFunction& layer, const at::Tensor& x,
                        const std::vector<at::Tensor>& parameters) {
  bool trains = false;
  for (const at::Tensor& parameter : parameters) {
    trains = trains || parameter.requires_grad();
  }
  if (!c10::GradMode::is_enabled() || (!trains && !x.requires_grad())) {
    return layer(x);
  }
  const at::Tensor trigger = at::zeros({}, x.options()).set_requires_grad(trains);
  return CheckpointFunction::apply(x, trigger, std::make_shared<LayerFunction>(layer));
}

}  // namespace puzzle
