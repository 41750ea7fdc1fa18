// The walk of a stage through the parent's layers: which it makes, and which it only passes because
// an earlier run finished them or nobody asked for them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "puzzle/stages/run_context.h"

namespace puzzle {

struct LayerWalk {
  std::vector<bool> makes;     // by layer; the last one that is to be made ends it
  std::int64_t num_made = 0;   // of the wanted layers
  std::int64_t num_found = 0;  // finished by an earlier run

  [[nodiscard]] std::int64_t num_layers() const { return std::ssize(makes); }
};

// A layer is finished where rank 0's database has the record `keys` names and `has_files`, which is
// asked on rank 0, says that what it wrote is there. `wanted` empty: all layers.
[[nodiscard]] LayerWalk plan_layer_walk(RunContext& context, const std::vector<std::string>& keys,
                                        const std::vector<std::int64_t>& wanted,
                                        const std::function<bool(std::int64_t layer)>& has_files);

// Calls `make` or `skip` for each layer in order; errors name stage and layer.
void walk_layers(const LayerWalk& walk, const std::string& stage,
                 const std::function<void(std::int64_t layer)>& make,
                 const std::function<void(std::int64_t layer)>& skip);

}  // namespace puzzle
