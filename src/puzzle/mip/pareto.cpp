#include "puzzle/mip/pareto.h"

#include <algorithm>

namespace puzzle {

std::vector<ParetoPoint> sweep_budget(const Solver& solver, const Problem& problem,
                                      const std::string& cost, const std::vector<double>& values,
                                      const SolveOptions& options) {
  Problem point_problem = problem;
  point_problem.num_solutions = 1;
  auto& budgets = point_problem.budgets;
  auto budget = std::find_if(budgets.begin(), budgets.end(),
                             [&](const Budget& candidate) { return candidate.cost == cost; });
  if (budget == budgets.end()) {
    budgets.push_back({.cost = cost, .at_most = std::nullopt, .at_least = std::nullopt});
    budget = budgets.end() - 1;
  }
  std::vector<ParetoPoint> points;
  for (const double value : values) {
    budget->at_most = value;
    points.push_back({.at_most = value, .result = solver.solve(point_problem, options)});
  }
  return points;
}

}  // namespace puzzle
