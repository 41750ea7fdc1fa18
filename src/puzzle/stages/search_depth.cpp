#include "puzzle/stages/search_depth.h"

#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"

namespace puzzle {
namespace {

// What dropping one more layer can give, and which layer that is.
struct Drops {
  std::vector<Assignment> children;
  std::vector<std::size_t> layers;
};

Drops possible_drops(const Problem& covers_only, const DepthChoices& choices,
                     const Assignment& current) {
  Drops drops;
  for (std::size_t layer = 0; layer < current.size(); ++layer) {
    if (!choices.dropped[layer] || current[layer] == *choices.dropped[layer]) {
      continue;
    }
    Assignment child = current;
    child[layer] = *choices.dropped[layer];
    if (is_feasible(covers_only, child)) {
      drops.children.push_back(std::move(child));
      drops.layers.push_back(layer);
    }
  }
  return drops;
}

}  // namespace

std::optional<Assignment> drop_layers(const Problem& problem, const DepthChoices& choices,
                                      const MeasureChildren& measure) {
  Problem covers_only = problem;
  covers_only.budgets.clear();
  Assignment current = choices.kept;
  const auto num_layers = static_cast<std::int64_t>(current.size());
  Progress progress("search: layers to drop", num_layers * (num_layers + 1) / 2, "children");
  while (!is_feasible(problem, current)) {
    const Drops drops = possible_drops(covers_only, choices, current);
    if (drops.children.empty()) {
      return std::nullopt;
    }
    const std::vector<MeasuredKl> measured = measure(drops.children, current);
    std::size_t best = 0;
    for (std::size_t d = 1; d < measured.size(); ++d) {
      if (measured[d].mean().value < measured[best].mean().value) {
        best = d;
      }
    }
    current = drops.children[best];
    log_debug("search: without layer {}: {:.4f} nats", drops.layers[best],
              measured[best].mean().value);
    progress.advance(std::ssize(drops.children));
  }
  return current;
}

}  // namespace puzzle
