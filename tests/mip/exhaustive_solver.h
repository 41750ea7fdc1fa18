// Tries every assignment: the oracle that other solvers are tested against.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "puzzle/mip/solver.h"

namespace puzzle::test {

// Ignores the time limit. Refuses (kUsage) problems of more than 1e8 assignments.
class ExhaustiveSolver : public Solver {
 protected:
  [[nodiscard]] Answer solve_one(const Problem& problem, const std::vector<Assignment>& earlier,
                                 const SolveOptions& /*options*/) const override {
    double count = 1.0;
    for (const auto& choices : problem.layers) {
      count *= static_cast<double>(choices.size());
    }
    if (count > 1e8) {
      fail(ErrorKind::kUsage, "exhaustive search of {:.3g} assignments; use HiGHS", count);
    }
    const std::int64_t max_shared = max_shared_layers(problem);
    Answer answer;
    answer.status = SolveStatus::kInfeasible;
    double best = std::numeric_limits<double>::infinity();
    Assignment assignment(problem.layers.size(), 0);
    do {
      const bool differs = std::all_of(
          earlier.begin(), earlier.end(),
          [&](const Assignment& other) { return count_shared(other, assignment) <= max_shared; });
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

 private:
  // Counts through all assignments; false after the last.
  [[nodiscard]] static bool next_assignment(const Problem& problem, Assignment* assignment) {
    for (std::size_t l = 0; l < assignment->size(); ++l) {
      if (++(*assignment)[l] < problem.layers[l].size()) {
        return true;
      }
      (*assignment)[l] = 0;
    }
    return false;
  }
};

}  // namespace puzzle::test
