// The uniform plain model that computes what a child computes (docs/formats.md): it
// saves nothing and loads wherever the parent's own class does.
//
//   KV heads        each repeated to K, the least common multiple of all layers' (1 where none has)
//   FFN             zero channels up to W, the widest layer's; at least D if anything is linear
//   none            zeros; a layer without any sub-block is left out
//   linear FFN      a SwiGLU whose gate is a constant (LinearFfnForm), for which all have mlp_bias
//   linear attention  the same, in a layer inserted before, or in the layer itself if it has no FFN
// Biases that only the class asks for (Qwen2's o behind mlp_bias) are zero.
#pragma once

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Of a block in a model whose layers are spec's: K and W count both.
[[nodiscard]] LoweredBlock lower_for_padded(const ModelSpec& spec, const BlockSpec& block);

// The plain model: as many layers as are written, all alike. If no class holds it, neither does it
// hold spec: refusal().
[[nodiscard]] ModelSpec padded_spec(const ModelSpec& spec);

}  // namespace puzzle
