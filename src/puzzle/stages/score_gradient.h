// Method gradient: second-order estimates of all scores from a few backward passes through the
// parent, with no forward pass per candidate.
#pragma once

#include <string>

#include "puzzle/stages/score_candidates.h"

namespace puzzle {

// Of all rows that score_gradient makes of the same inputs.
[[nodiscard]] std::string gradient_key(const RunContext& context, const LayerCandidates& candidates,
                                       const ScoreOptions& options);

// With g the gradient at a layer's output of the log-probability of labels drawn from the parent at
// every position, and δ what a candidate changes in that output on the parent's own input,
// a_t = ⟨g_t, δ_t⟩ gives the KL to second order. Rows for every candidate and, from the sum of its
// halves' a, for every other block of the space (an attention variant's δ is taken with the
// parent's FFN behind it), under method "gradient" and four metrics: "kl_per_sequence",
// "kl_per_token", their combination "kl" (score_estimates.h), and "giant_change", which
// score_hybrid.h asks for.
//
// Windows are split over ranks; a batch of `batch_windows` is walked at a time, so memory is
// that of estimate_second_order (second_order.h) and does not grow with the tokens. All rows appear
// together. Throws Error(kUsage) for a variant that the library does not hold, Error(kNumeric)
// naming the variant for activations that are not finite.
void score_gradient(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                    const TokenPart& part, const ScoreOptions& options,
                    const LayerCandidates& candidates, const std::string& key);

// Layer passes over all tokens that it costs (score_exact.h): two forward passes, `samples`
// backward ones, and at most one layer per candidate.
[[nodiscard]] std::int64_t gradient_passes(const ModelSpec& parent, std::int64_t window,
                                           std::int64_t samples, std::int64_t num_candidates);

}  // namespace puzzle
