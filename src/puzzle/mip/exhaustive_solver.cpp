#include "puzzle/mip/exhaustive_solver.h"

#include <algorithm>
#include <limits>

namespace puzzle {
namespace {

constexpr double kMaxAssignments = 1e8;

// Counts through all assignments; false after the last.
bool next_assignment(const Problem& problem, Assignment* assignment) {
  for (std::size_t l = 0; l < assignment->size(); ++l) {
    if (++(*assignment)[l] < problem.layers[l].size()) {
      return true;
    }
    (*assignment)[l] = 0;
  }
  return false;
}

}  // namespace

Solver::Answer ExhaustiveSolver::solve_one(const Problem& problem,
                                           const std::vector<Assignment>& earlier,
                                           const SolveOptions& /*options*/) const {
  double count = 1.0;
  for (const auto& choices : problem.layers) {
    count *= static_cast<double>(choices.size());
  }
  if (count > kMaxAssignments) {
    fail(ErrorKind::kUsage, "exhaustive search of {:.3g} assignments, at most {:.0e}; use HiGHS",
         count, kMaxAssignments);
  }
  const std::int64_t max_shared = max_shared_layers(problem);
  Answer answer;
  answer.status = SolveStatus::kInfeasible;
  double best = std::numeric_limits<double>::infinity();
  Assignment assignment(problem.layers.size(), 0);
  do {
    const bool differs = std::all_of(earlier.begin(), earlier.end(), [&](const Assignment& other) {
      return count_shared(other, assignment) <= max_shared;
    });
    if (!differs || !is_feasible(problem, assignment)) {
      continue;
    }
    const double objective = evaluate(problem, assignment).objective;
    if (objective < best) {
      best = objective;
      answer = {.status = SolveStatus::kOptimal, .choices = assignment, .bound = objective};
    }
  } while (next_assignment(problem, &assignment));
  return answer;
}

}  // namespace puzzle
