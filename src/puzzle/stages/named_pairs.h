// Whole blocks named in options: "kv1/w768" in every layer that allows it, "7:kv1/w768" in one.
#pragma once

#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"

namespace puzzle {

// The blocks that `pairs` name, by layer, each once: a layer takes those of which its space holds
// both halves and neither half is the parent's own (a block of one own half is a sub-block variant
// and needs no pair). `option` opens messages, e.g. "score.pairs". Throws Error(kUsage) for a pair
// that names no block or layer, or that no layer takes.
[[nodiscard]] std::vector<std::vector<BlockSpec>> pairs_by_layer(
    const std::string& option, const std::vector<std::string>& pairs, const ModelSpec& parent,
    const SearchSpace& space);

}  // namespace puzzle
