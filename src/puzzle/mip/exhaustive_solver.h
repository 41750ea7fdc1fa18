// Tries every assignment: the oracle that other solvers are tested against.
#pragma once

#include "puzzle/mip/solver.h"

namespace puzzle {

// Ignores the time limit. Refuses (kUsage) problems of more than 1e8 assignments.
class ExhaustiveSolver : public Solver {
 protected:
  [[nodiscard]] Answer solve_one(const Problem& problem, const std::vector<Assignment>& earlier,
                                 const SolveOptions& options) const override;
};

}  // namespace puzzle
