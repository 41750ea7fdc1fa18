#include "puzzle/stages/child_changes.h"

#include <cmath>
#include <utility>

#include "puzzle/base/hash.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/score_candidates.h"
#include "puzzle/stages/second_order.h"

namespace puzzle {
namespace {

SecondOrderLayer plan_layer_changes(const LayerSpace& space, const BlockSpec& own,
                                    const LayerLibrary& library) {
  SecondOrderLayer layer;
  std::map<BlockSpec, std::int64_t> position;
  const auto evaluate = [&](const BlockSpec& block) {
    const auto [found, is_new] = position.try_emplace(block, std::ssize(layer.evaluated));
    if (is_new) {
      layer.evaluated.push_back(block);
    }
    return found->second;
  };
  for (const AttentionSpec& attention : space.attention) {
    for (const FfnSpec& ffn : space.ffn) {
      const BlockSpec block{attention, ffn};
      if (block == own) {
        continue;
      }
      const bool is_half = attention == own.attention || ffn == own.ffn;
      if (is_half || library.coupled.contains(block)) {
        layer.blocks.push_back({block, evaluate(block)});
      } else {
        layer.blocks.push_back(
            {block, evaluate({attention, own.ffn}), evaluate({own.attention, ffn})});
      }
    }
  }
  return layer;
}

}  // namespace

BlockChanges estimate_changes(RunContext& context, const LoadedModel& parent,
                              const std::filesystem::path& library_folder, const SearchSpace& space,
                              const Architecture& child, const TokenPart& part,
                              const ChangeOptions& options) {
  const ModelWeights model = make_child(parent.weights, library_folder, child);
  std::vector<LayerLibrary> libraries;
  SecondOrderInput input;
  input.name = "search: changes";
  input.model = &model;
  input.with_kl = true;
  for (std::size_t i = 0; i < child.size(); ++i) {
    libraries.push_back(
        find_layer_library(library_folder, static_cast<std::int64_t>(i), parent.weights));
    input.layers.push_back(plan_layer_changes(space.layers[i], child[i], libraries.back()));
  }
  input.library = [&](std::int64_t layer) { return libraries[static_cast<std::size_t>(layer)]; };
  input.seed = derive_seed(static_cast<std::uint64_t>(context.seed), "search/changes");
  input.samples = options.samples;
  input.batch_windows = options.batch_windows;
  const auto estimates = estimate_second_order(context, parent, input, part);
  BlockChanges changes;
  for (std::size_t i = 0; i < estimates.size(); ++i) {
    std::map<std::string, ScoreValue>& here = changes.emplace_back();
    here[child[i].name()] = {};
    for (const BlockEstimate& estimate : estimates[i]) {
      here[estimate.block.name()] = {
          estimate.first_order.value + estimate.combined.value,
          std::hypot(estimate.first_order.standard_error, estimate.combined.standard_error)};
    }
  }
  return changes;
}

}  // namespace puzzle
