// Method hybrid: estimates of all scores, and exact ones where an estimate is not enough.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/stages/score_candidates.h"

namespace puzzle {

// Layer passes over all tokens (score_exact.h) that exact scores may still take in all, besides the
// estimates: options.exact_share of one full forward pass per candidate. May be negative.
[[nodiscard]] std::int64_t exact_budget(const LayerCandidates& candidates, const ModelSpec& parent,
                                        std::int64_t window, const ScoreOptions& options);

// Candidates to score exactly, in this order: named pairs, the first layer (where second order
// fails), the last one (cheap), of every options.exact_every-th layer between them one attention
// and one FFN variant of median estimate (so that score_table.h learns by what factor estimates are
// off), those that change a giant token by more than options.exact_giants (second_order.h), then
// those whose estimate is above options.exact_above, the lowest first, since those are the
// likeliest to be chosen. `estimates`: rows of method gradient.
[[nodiscard]] std::vector<Candidate> doubtful_candidates(const LayerCandidates& candidates,
                                                         const std::vector<ScoreRow>& estimates,
                                                         const ModelSpec& parent,
                                                         const ScoreOptions& options);

// The sub-block variants that an architecture of `chosen` uses, layers in order.
[[nodiscard]] std::vector<Candidate> chosen_candidates(const LayerCandidates& candidates,
                                                       const std::vector<Architecture>& chosen,
                                                       const ModelSpec& parent);

// Of `wanted`, in their order, those not in `done` while they fit into what `done` leaves of
// `budget`.
[[nodiscard]] std::vector<Candidate> affordable(const std::vector<Candidate>& wanted,
                                                const std::vector<Candidate>& done,
                                                std::int64_t budget, const ModelSpec& parent,
                                                std::int64_t window);

}  // namespace puzzle
