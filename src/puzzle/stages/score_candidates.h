// What `score` puts into the parent, layer by layer, and under which keys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/stages/library.h"
#include "puzzle/stages/score.h"

namespace puzzle {

// Opens messages about pairs.
inline constexpr const char* kScorePairsOption = "score.pairs";

struct Candidate {
  std::int64_t layer = 0;
  BlockSpec block;
  std::string key;  // of its ScoreRows
};

using LayerCandidates = std::vector<std::vector<Candidate>>;  // by layer

// Sub-block variants with the parent's other half, then named pairs; never the parent's own block.
// `content`: key of the text or questions they are scored on; `method`: of the rows their keys are
// for.
[[nodiscard]] LayerCandidates all_candidates(const LoadedModel& parent, const ScoreInput& input,
                                             const SearchSpace& space, const std::string& content,
                                             const std::string& method,
                                             const std::vector<std::string>& pairs);

// Those that rank 0's database lacks, known to every rank.
[[nodiscard]] LayerCandidates missing_candidates(RunContext& context, LayerCandidates layers);

[[nodiscard]] std::int64_t num_candidates(const LayerCandidates& layers);
// One past the last layer that has any: as far as a walk through the parent has to go.
[[nodiscard]] std::size_t end_of_candidates(const LayerCandidates& layers);
[[nodiscard]] std::vector<std::string> keys_of(const LayerCandidates& layers);

}  // namespace puzzle
