// Rounds: part of the way to the budgets at a time, on scores taken anew around the child of the
// round before.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "puzzle/mip/problem.h"
#include "puzzle/stages/search_probe.h"

namespace puzzle {

struct RoundOptions {
  std::int64_t rounds = 4;
  std::int64_t round_layers = 0;  // that may change in one; 0 = twice an equal share
};

// Above this change of KL, nats, second order fails; so an exact score of the parent counts if it
// says more than the estimate around the child.
inline constexpr double kSecondOrderLimit = 0.3;

// The problem with changes around a child instead of scores: its own choices 0. What the scores say
// of the same swap is the prior, for a minimum over many noisy estimates is mostly noise: an
// estimate e of standard error σ and the scores' difference d give d + (e − d) τ²/(τ² + σ²). τ is
// what the child's surroundings change in truth, taken to be proportional to the larger of the two
// scores, with the factor that makes (e − d)² = τ² + σ² on the whole.
[[nodiscard]] Problem with_changes(const Problem& problem, const BlockChanges& changes,
                                   const Assignment& child);

// Upper bounds that an assignment oversteps move to the geometric mean of what it costs and what
// they were, weighted: `share` = 1 leaves them, 0 asks for nothing yet. Lower bounds are no higher
// than what the assignment costs until share is 1.
[[nodiscard]] Problem part_of_the_way(const Problem& problem, const Assignment& from, double share);

// At most `layers` layers may leave the assignment.
[[nodiscard]] Problem near_to(const Problem& problem, const Assignment& child, std::int64_t layers);

using ChangesAround = std::function<BlockChanges(const Assignment& child)>;
// Empty: nothing was found, within the solver's time limit if it had one.
using SolveProblem = std::function<std::optional<Assignment>(const Problem& problem)>;

// Round r of R solves for budgets r/R of the way, geometrically, from `start`'s costs to the
// problem's, with changes around the child of the round before (the problem's own scores in the
// first), and may change round_layers layers, doubled where the budgets cannot be met so. Empty if
// a round finds nothing.
[[nodiscard]] std::optional<Assignment> search_in_rounds(const Problem& problem,
                                                         const Assignment& start,
                                                         const RoundOptions& options,
                                                         const ChangesAround& changes,
                                                         const SolveProblem& solve);

}  // namespace puzzle
