// Best score against one budget, all else equal.
#pragma once

#include <string>
#include <vector>

#include "puzzle/mip/solver.h"

namespace puzzle {

struct ParetoPoint {
  double at_most = 0.0;
  SolveResult result;  // of one solution; may be infeasible
};

// Solves the problem once per value of the upper bound on `cost` (added if the problem has none),
// in the order given. An infeasible point is an answer like any other.
[[nodiscard]] std::vector<ParetoPoint> sweep_budget(const Solver& solver, const Problem& problem,
                                                    const std::string& cost,
                                                    const std::vector<double>& values,
                                                    const SolveOptions& options = {});

}  // namespace puzzle
