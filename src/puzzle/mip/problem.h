// The search as plain data: one choice per layer, scores added up and minimised, costs added up and
// held against budgets. Knows nothing of transformers.
//
//   minimise    sum_l score(l, c_l)
//   subject to  at_least(k) <= fixed_cost(k) + sum_l cost(l, c_l, k) <= at_most(k), every budget k
//               at least n layers choose from a named set, every cover
//               at most floor(max_shared_fraction * L) layers equal those of an earlier solution
//
// Paper section 5 (ICML appendix B). The file form is in problem_file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/base/error.h"

namespace puzzle {

struct Choice {
  std::string name;           // unique in its layer
  double score = 0.0;         // finite; lower is better
  std::vector<double> costs;  // one per Problem::cost_names; finite, >= 0
};

// Bounds on fixed cost + sum over layers of one cost; at least one of the two is set.
struct Budget {
  std::string cost;                // a name in Problem::cost_names; one budget per cost
  std::optional<double> at_most;   // finite, >= 0
  std::optional<double> at_least;  // finite, >= 0
};

// At least `at_least` layers take one of their listed choices ("one layer keeps grouped-query
// attention").
struct CoverConstraint {
  std::string name;
  std::vector<std::vector<std::size_t>> choices_per_layer;  // indices into each layer, unique
  std::int64_t at_least = 1;                                // >= 1
};

struct Problem {
  std::vector<std::string> cost_names;
  std::vector<std::vector<Choice>> layers;
  std::vector<Budget> budgets;      // costs without a budget are only summed
  std::vector<double> fixed_costs;  // one per cost name, count against budgets; empty = zeros
  std::vector<CoverConstraint> covers;
  std::int64_t num_solutions = 1;
  double max_shared_fraction = 0.8;  // in [0, 1]; 1 still means a different solution each time
};

// One choice index per layer.
using Assignment = std::vector<std::size_t>;

struct Evaluation {
  double objective = 0.0;     // sum of scores, in layer order
  std::vector<double> costs;  // one per cost name, fixed cost first, then in layer order
};

// Throws Error(kind) that names the layer, the choice or the budget at fault; `place` opens the
// message. Every solver calls it first.
void check_problem(const Problem& problem, ErrorKind kind, const std::string& place);

// Position of a cost; throws Error(kUsage) that lists the known ones.
[[nodiscard]] std::size_t cost_index(const Problem& problem, const std::string& cost);
[[nodiscard]] double fixed_cost(const Problem& problem, std::size_t cost);

[[nodiscard]] Evaluation evaluate(const Problem& problem, const Assignment& assignment);

// Whether every bound and every cover holds. A sum passes a bound only if it oversteps it by no
// more than 1e-12 of its size: the rounding of the sum itself (0.1 + 0.2 against 0.3), never a byte
// of a real memory budget.
[[nodiscard]] bool is_feasible(const Problem& problem, const Assignment& assignment);
[[nodiscard]] bool is_at_most(double sum, double bound);

// Number of layers with the same choice.
[[nodiscard]] std::int64_t count_shared(const Assignment& a, const Assignment& b);
// How many layers a further solution may share with an earlier one; below the number of layers.
[[nodiscard]] std::int64_t max_shared_layers(const Problem& problem);

[[nodiscard]] std::vector<std::string> choice_names(const Problem& problem,
                                                    const Assignment& assignment);

// The same problem with only the choices for which `keep(layer, choice)` holds: a restricted search
// space, e.g. depth only. Throws Error(kUsage) if a layer keeps none.
[[nodiscard]] Problem restrict_choices(const Problem& problem,
                                       const std::function<bool(std::size_t, const Choice&)>& keep);

}  // namespace puzzle
