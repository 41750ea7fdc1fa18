#include "puzzle/stages/score_candidates.h"

#include <filesystem>
#include <set>
#include <utility>

#include "puzzle/base/hash.h"
#include "puzzle/stages/named_pairs.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other rows.
constexpr std::int64_t kScoreVersion = 2;

std::vector<BlockSpec> layer_candidates(const LayerSpace& space, const BlockSpec& own,
                                        const std::vector<BlockSpec>& pairs) {
  std::vector<BlockSpec> blocks;
  for (const AttentionSpec& attention : space.attention) {
    if (attention != own.attention) {
      blocks.push_back({attention, own.ffn});
    }
  }
  for (const FfnSpec& ffn : space.ffn) {
    if (ffn != own.ffn) {
      blocks.push_back({own.attention, ffn});
    }
  }
  blocks.insert(blocks.end(), pairs.begin(), pairs.end());
  return blocks;
}

}  // namespace

LayerCandidates all_candidates(const LoadedModel& parent, const ScoreInput& input,
                               const SearchSpace& space, const std::string& content,
                               const std::string& method, const std::vector<std::string>& pairs) {
  const auto named = pairs_by_layer(kScorePairsOption, pairs, parent.weights.spec, space);
  LayerCandidates layers;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    std::vector<Candidate> candidates;
    for (const BlockSpec& block :
         layer_candidates(space.layers[i], parent.weights.spec.layers[i], named[i])) {
      const auto layer = static_cast<std::int64_t>(i);
      KeyBuilder key;
      key.add("stage", "score").add("version", kScoreVersion).add("method", method);
      key.add("parent", parent.key).add("library", input.library_key).add("part", content);
      key.add("layer", layer).add("block", block.name());
      candidates.push_back({layer, block, key.key()});
    }
    layers.push_back(std::move(candidates));
  }
  return layers;
}

LayerCandidates missing_candidates(RunContext& context, LayerCandidates layers) {
  const std::vector<std::string> keys = keys_of(layers);
  const std::set<std::string> known = context.communicator.is_first()
                                          ? context.db.keys(RunTable::kScores)
                                          : std::set<std::string>();
  const std::vector<bool> is_done = ask_first_rank(
      context.communicator, keys.size(), [&](std::size_t i) { return known.contains(keys[i]); });
  std::size_t position = 0;
  for (auto& layer : layers) {
    std::erase_if(layer, [&](const Candidate&) { return is_done.at(position++); });
  }
  return layers;
}

std::int64_t num_candidates(const LayerCandidates& layers) {
  std::int64_t count = 0;
  for (const auto& layer : layers) {
    count += std::ssize(layer);
  }
  return count;
}

std::size_t end_of_candidates(const LayerCandidates& layers) {
  std::size_t end = layers.size();
  while (end > 0 && layers[end - 1].empty()) {
    --end;
  }
  return end;
}

std::vector<std::string> keys_of(const LayerCandidates& layers) {
  std::vector<std::string> keys;
  for (const auto& layer : layers) {
    for (const Candidate& candidate : layer) {
      keys.push_back(candidate.key);
    }
  }
  return keys;
}

}  // namespace puzzle
