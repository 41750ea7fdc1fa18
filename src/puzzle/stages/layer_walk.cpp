#include "puzzle/stages/layer_walk.h"

#include <algorithm>

#include <fmt/format.h>

#include "puzzle/tensor/with_place.h"

namespace puzzle {

LayerWalk plan_layer_walk(RunContext& context, const std::vector<std::string>& keys,
                          const std::vector<std::int64_t>& wanted,
                          const std::function<bool(std::int64_t layer)>& has_files) {
  const std::vector<bool> finished =
      ask_first_rank(context.communicator, keys.size(), [&](std::size_t i) {
        return context.db.has_stage(keys[i]) && has_files(static_cast<std::int64_t>(i));
      });
  LayerWalk walk;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!wanted.empty() &&
        std::ranges::find(wanted, static_cast<std::int64_t>(i)) == wanted.end()) {
      continue;
    }
    ++(finished[i] ? walk.num_found : walk.num_made);
    if (!finished[i]) {
      walk.makes.resize(i + 1, false);
      walk.makes[i] = true;
    }
  }
  return walk;
}

void walk_layers(const LayerWalk& walk, const std::string& stage,
                 const std::function<void(std::int64_t layer)>& make,
                 const std::function<void(std::int64_t layer)>& skip) {
  for (std::int64_t layer = 0; layer < walk.num_layers(); ++layer) {
    with_place(fmt::format("{}, layer {}", stage, layer),
               [&] { (walk.makes[static_cast<std::size_t>(layer)] ? make : skip)(layer); });
  }
}

}  // namespace puzzle
