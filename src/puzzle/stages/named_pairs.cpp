#include "puzzle/stages/named_pairs.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

struct NamedPair {
  std::optional<std::int64_t> layer;  // every layer otherwise
  BlockSpec block;
};

BlockSpec parse_pair_block(const std::string& option, const std::string& text,
                           const std::string& block) {
  try {
    return parse_block(block);
  } catch (const Error& error) {
    fail(ErrorKind::kUsage, "{}: '{}': {}", option, text, error.what());
  }
}

NamedPair parse_named_pair(const std::string& option, const std::string& text,
                           std::int64_t num_layers) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return {std::nullopt, parse_pair_block(option, text, text)};
  }
  const auto layer = parse_number<std::int64_t>(std::string_view(text).substr(0, colon));
  if (!layer || *layer < 0 || *layer >= num_layers) {
    fail(ErrorKind::kUsage, "{}: '{}': expected a layer from 0 to {} before the colon", option,
         text, num_layers - 1);
  }
  return {layer, parse_pair_block(option, text, text.substr(colon + 1))};
}

bool holds_block(const LayerSpace& space, const BlockSpec& block) {
  return std::ranges::find(space.attention, block.attention) != space.attention.end() &&
         std::ranges::find(space.ffn, block.ffn) != space.ffn.end();
}

void add_pair(const std::string& option, const std::string& text, const ModelSpec& parent,
              const SearchSpace& space, std::vector<std::vector<BlockSpec>>& layers) {
  const NamedPair pair = parse_named_pair(option, text, parent.num_layers());
  bool is_held = false;
  bool is_used = false;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const bool is_meant = !pair.layer.has_value() || *pair.layer == static_cast<std::int64_t>(i);
    if (!is_meant || !holds_block(space.layers[i], pair.block)) {
      continue;
    }
    is_held = true;
    const BlockSpec& own = parent.layers[i];
    if (pair.block.attention == own.attention || pair.block.ffn == own.ffn) {
      continue;
    }
    is_used = true;
    if (std::ranges::find(layers[i], pair.block) == layers[i].end()) {
      layers[i].push_back(pair.block);
    }
  }
  if (!is_held) {
    fail(ErrorKind::kUsage,
         "{}: '{}': no layer it names has both halves in its search space; add them to "
         "search_space, or take the pair out",
         option, text);
  }
  if (!is_used) {
    fail(ErrorKind::kUsage,
         "{}: '{}': one half is the parent's own, expected two that are not; the other half alone "
         "is a variant that needs no pair",
         option, text);
  }
}

}  // namespace

std::vector<std::vector<BlockSpec>> pairs_by_layer(const std::string& option,
                                                   const std::vector<std::string>& pairs,
                                                   const ModelSpec& parent,
                                                   const SearchSpace& space) {
  PUZZLE_CHECK(std::ssize(space.layers) == parent.num_layers(),
               "a search space of {} layers, parent {}", space.layers.size(), parent.num_layers());
  std::vector<std::vector<BlockSpec>> layers(space.layers.size());
  for (const std::string& pair : pairs) {
    add_pair(option, pair, parent, space, layers);
  }
  return layers;
}

}  // namespace puzzle
