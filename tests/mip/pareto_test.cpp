#include "puzzle/mip/pareto.h"

#include <gtest/gtest.h>

#include "mip/random_problem.h"
#include "puzzle/mip/highs_solver.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(Pareto, TighterBudgetsCostMore) {
  Problem problem = test::large_problem(12, 9);
  problem.num_solutions = 3;  // the sweep asks for one each
  const double whole = *problem.budgets[0].at_most;
  const auto points = sweep_budget(HighsSolver(), problem, "memory_bytes",
                                   {1.2 * whole, whole, 0.8 * whole, 0.5 * whole, 0.01 * whole});
  ASSERT_EQ(points.size(), 5U);
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(points[i].result.status, SolveStatus::kOptimal);
    ASSERT_EQ(points[i].result.solutions.size(), 1U);
    EXPECT_LE(points[i].result.solutions[0].costs[0], points[i].at_most);
    if (i > 0) {
      EXPECT_GE(points[i].result.solutions[0].objective,
                points[i - 1].result.solutions[0].objective * (1.0 - 1e-6));
    }
  }
  EXPECT_EQ(points[4].result.status, SolveStatus::kInfeasible);
}

TEST(Pareto, AddsABudgetWhereThereIsNone) {
  Problem problem = test::large_problem(4, 9);
  problem.budgets.clear();
  const auto points = sweep_budget(HighsSolver(), problem, "prefill_s", {0.01, 1.0});
  EXPECT_LE(points[0].result.solutions[0].costs[1], 0.01);
  EXPECT_EQ(points[1].result.solutions[0].objective, 0.0);
  EXPECT_PUZZLE_ERROR((void)sweep_budget(HighsSolver(), problem, "prefil_s", {1.0}),
                      ErrorKind::kUsage, "did you mean prefill_s?");
}

}  // namespace
}  // namespace puzzle
