// Scores by what the parent with one block replaced gets wrong (paper F.1.4): metric "downstream",
// the drop of accuracy on evaluation sets.
#pragma once

#include <string>
#include <vector>

#include "puzzle/data/eval_sets.h"
#include "puzzle/stages/score_candidates.h"

namespace puzzle {

// The sets that the options name. Throws as load_eval_set.
[[nodiscard]] std::vector<EvalSet> load_score_sets(const ScoreOptions& options,
                                                   const Tokenizer& tokenizer);

[[nodiscard]] std::string content_key_of(const std::vector<EvalSet>& sets);

// Writes a row for each candidate: the parent's accuracy minus the modified model's, the mean over
// sets, with the standard error of differences paired by question. Each costs a forward pass over
// the sets from its own layer on. Questions are split over ranks.
void score_downstream(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                      const std::vector<EvalSet>& sets, const LayerCandidates& missing);

}  // namespace puzzle
