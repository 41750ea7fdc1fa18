// What the search is compared with (paper F.2), on the same problem and under the same budgets.
// Restricted spaces (depth only, no-op only) are restrict_choices() + Solver::solve().
//
// Every returned solution meets budgets and covers. `bound`, `gap` and `proven` mean nothing for
// these rules and stay at (objective, 0, false), except for solve_max_cost.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/mip/solver.h"

namespace puzzle {

// Paper F.2.2: upper bounds are split equally over the layers; layers are visited from the lowest
// to the highest mean score; each takes its lowest-score choice that fits its share of every
// budget, and hands on what it leaves. Ours: a layer in which nothing fits takes the choice that
// overshoots least and hands on the debt; a cover that only the remaining layers can still meet
// limits their choices. Empty if the result misses a budget or a cover: greedy found none, others
// may exist.
[[nodiscard]] std::optional<Solution> solve_greedy(const Problem& problem);

// Paper F.2.3: the largest sum of one cost (parameters) under the same budgets, scores ignored.
// `objective` is the sum of the scores as everywhere; `bound`, `gap` and `proven` are those of the
// minimised negative cost.
[[nodiscard]] SolveResult solve_max_cost(const Solver& solver, const Problem& problem,
                                         const std::string& cost, const SolveOptions& options = {});

// One feasible assignment drawn at random. Up to 10,000 independent uniform draws are tried: the
// first feasible one is exactly uniform among the feasible. Where those are too rare, a solution
// for random scores is the start of a walk of 200 steps per layer, each of which redraws one or two
// layers and is undone if it breaks a bound; that walk is uniform over what it can reach. Empty if
// the problem is infeasible (or the solver ran out of time).
[[nodiscard]] std::optional<Solution> solve_random(const Solver& solver, const Problem& problem,
                                                   std::uint64_t seed,
                                                   const SolveOptions& options = {});

// Single names used in every layer (layers with one choice only keep that): the
// problem.num_solutions with the lowest sums of scores, the lowest first. Empty if no such name
// meets the budgets.
[[nodiscard]] std::vector<Solution> solve_uniform(const Problem& problem);

}  // namespace puzzle
