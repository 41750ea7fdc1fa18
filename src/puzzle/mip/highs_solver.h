// Mixed-integer program through HiGHS, one thread, deterministic unless a time limit strikes.
#pragma once

#include "puzzle/mip/solver.h"

namespace puzzle {

// 80 layers × 54 choices with three budgets: seconds. Thread-safe: every solve has its own HiGHS.
class HighsSolver : public Solver {
 protected:
  [[nodiscard]] Answer solve_one(const Problem& problem, const std::vector<Assignment>& earlier,
                                 const SolveOptions& options) const override;
};

}  // namespace puzzle
