// Gradient checkpointing: the forward pass keeps a layer's input instead of its inner activations,
// the backward pass runs the layer again.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace puzzle {

// y = layer(x), differentiable in x and in `parameters`, the leaves that the layer uses. `layer`
// must give the same result when it is called again (no randomness). Gradients have the bits of the
// plain call. Parameters' gradients are accumulated in place during the backward pass, as autograd
// does for leaves.
[[nodiscard]] at::Tensor checkpointed(const std::function<at::Tensor(const at::Tensor&)>& layer,
                                      const at::Tensor& x,
                                      const std::vector<at::Tensor>& parameters);

}  // namespace puzzle
