#include "puzzle/stages/layer_gradients.h"

#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "puzzle/base/hash.h"
#include "puzzle/tensor/head_gradients.h"

namespace puzzle {
namespace {

using LayerFunction = std::function<at::Tensor(const at::Tensor&)>;

// Replaces the gradients at f's output by those at its input x.
void pull_back(const LayerFunction& f, const at::Tensor& x, std::vector<at::Tensor>& gradients) {
  const c10::AutoGradMode grad_on(true);
  const at::Tensor leaf = x.detach().requires_grad_(true);
  const at::Tensor y = f(leaf);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const bool is_last = i + 1 == gradients.size();
    gradients[i] = torch::autograd::grad({y}, {leaf}, {gradients[i].reshape(y.sizes())},
                                         /*retain_graph=*/!is_last)[0];
  }
}

}  // namespace

at::Tensor walk_gradients(const ModelWeights& model, const Geometry& geometry,
                          const GradientWalk& walk, const LayerVisitor& visit) {
  const c10::NoGradGuard no_grad;
  const std::int64_t num_layers = model.spec.num_layers();
  const PassContext& pass = *walk.pass;
  std::vector<at::Tensor> states = {embed(model, walk.tokens_BT)};  // [i] enters layer i
  for (std::int64_t i = 0; i < num_layers; ++i) {
    states.push_back(
        apply_layer(model.layers[static_cast<std::size_t>(i)], geometry, states.back(), pass));
  }
  const std::int64_t hidden = states.back().size(-1);
  const bool has_parent = walk.parent_final_ND.defined();
  const at::Tensor final_ND = final_hidden(model, states.back()).reshape({-1, hidden});
  const HeadInput parent{walk.parent_final_ND, walk.parent_head_VD};
  HeadGradients head =
      head_gradients({final_ND, model.head}, walk.uniforms_BTS.flatten(0, 1).to(final_ND.device()),
                     has_parent ? &parent : nullptr);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& sampled : head.sampled_SND.to(final_ND.scalar_type()).unbind(0)) {
    gradients.push_back(sampled);
  }
  if (has_parent) {
    gradients.push_back(head.kl_ND.to(final_ND.scalar_type()));
  }
  head.sampled_SND.reset();
  pull_back([&](const at::Tensor& x) { return final_hidden(model, x); }, states.back(), gradients);
  for (std::int64_t i = num_layers - 1; i >= walk.first_layer; --i) {
    const auto index = static_cast<std::size_t>(i);
    const std::vector<at::Tensor> sampled(gradients.begin(),
                                          gradients.end() - (has_parent ? 1 : 0));
    visit({.layer = i,
           .input_BTD = states[index],
           .output_BTD = states[index + 1],
           .sampled_SBTD = at::stack(sampled),
           .kl_BTD = has_parent ? gradients.back() : at::Tensor()});
    states.pop_back();
    if (i > walk.first_layer) {
      pull_back(
          [&](const at::Tensor& x) { return apply_layer(model.layers[index], geometry, x, pass); },
          states[index], gradients);
    }
  }
  return head.kl_N;
}

at::Tensor window_uniforms(std::uint64_t seed, std::int64_t first_window, std::int64_t num_windows,
                           std::int64_t window_tokens, std::int64_t samples) {
  std::vector<at::Tensor> windows;
  for (std::int64_t w = first_window; w < first_window + num_windows; ++w) {
    auto generator = at::detail::createCPUGenerator(
        derive_seed(seed, "sampled labels/window " + std::to_string(w)));
    windows.push_back(at::rand({window_tokens, samples}, generator, at::TensorOptions(at::kFloat)));
  }
  return windows.empty() ? at::empty({0, window_tokens, samples}) : at::stack(windows);
}

}  // namespace puzzle
