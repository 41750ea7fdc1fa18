// Depth moves: which whole layers to drop, one after the other.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "puzzle/mip/problem.h"
#include "puzzle/stages/search_probe.h"

namespace puzzle {

// KL of children that differ little from `base`.
using MeasureChildren = std::function<std::vector<MeasuredKl>(
    const std::vector<Assignment>& children, const Assignment& base)>;

// One choice of each layer keeps it, the other (if any) drops it.
struct DepthChoices {
  Assignment kept;
  std::vector<std::optional<std::size_t>> dropped;  // by layer; unset: the layer has to stay
};

// From the whole model on, drops the layer whose loss costs the least KL given those that are gone
// already, until the budgets are met; measured anew after every drop, since sums of scores
// choose other layers, and worse ones (docs/results.md, depth-one-shot beside depth-only). Of equal
// layers the lower one goes. A layer without which a cover cannot be met stays. Empty if no layer
// is left to drop before the budgets are met. Costs half a forward pass over the text per layer and
// drop.
[[nodiscard]] std::optional<Assignment> drop_layers(const Problem& problem,
                                                    const DepthChoices& choices,
                                                    const MeasureChildren& measure);

}  // namespace puzzle
