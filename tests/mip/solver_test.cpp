#include "puzzle/mip/solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "mip/exhaustive_solver.h"
#include "mip/random_problem.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/mip/highs_solver.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::brute_force;
using test::brute_force_score;
using test::ExhaustiveSolver;
using test::random_problem;
using test::RandomProblemOptions;
using ::testing::HasSubstr;

// Two layers, one cost: small enough to read.
Problem two_layers() {
  Problem problem;
  problem.cost_names = {"bytes"};
  problem.layers = {{{"parent", 0.0, {100.0}}, {"half", 0.25, {50.0}}, {"none", 1.0, {0.0}}},
                    {{"parent", 0.0, {100.0}}, {"half", 0.5, {50.0}}, {"none", 3.0, {0.0}}}};
  problem.budgets = {{.cost = "bytes", .at_most = 150.0, .at_least = std::nullopt}};
  return problem;
}

void expect_matches_brute_force(const Problem& problem, const SolveResult& result,
                                const std::string& label) {
  std::vector<Assignment> earlier;
  for (std::size_t i = 0; i < result.solutions.size(); ++i) {
    const Solution& solution = result.solutions[i];
    const auto expected = brute_force_score(problem, earlier, max_shared_layers(problem));
    ASSERT_TRUE(expected.has_value()) << label << ", solution " << i;
    EXPECT_NEAR(solution.objective, *expected, 1e-6 * std::abs(*expected))
        << label << ", solution " << i;
    EXPECT_TRUE(solution.proven) << label << ", solution " << i << ", gap " << solution.gap;
    EXPECT_LE(solution.bound, *expected * (1.0 + 1e-9)) << label;
    earlier.push_back(solution.choices);
  }
  const auto next = brute_force_score(problem, earlier, max_shared_layers(problem));
  if (result.solutions.empty()) {
    EXPECT_FALSE(next.has_value()) << label << ": infeasible, but the brute force finds " << *next;
  } else if (static_cast<std::int64_t>(result.solutions.size()) < problem.num_solutions) {
    EXPECT_TRUE(result.no_more_solutions) << label;
    EXPECT_FALSE(next.has_value()) << label << ": there is one more solution";
  }
}

// The value of every bound that an infeasible answer names.
void expect_reach_matches(const Problem& problem, const Infeasibility& infeasibility,
                          const std::string& label) {
  std::size_t expected_count = 0;
  for (const Budget& budget : problem.budgets) {
    expected_count += (budget.at_most ? 1U : 0U) + (budget.at_least ? 1U : 0U);
  }
  ASSERT_EQ(infeasibility.budgets.size(), expected_count) << label;
  for (const BudgetReach& reach : infeasibility.budgets) {
    std::size_t b = 0;
    while (problem.budgets[b].cost != reach.cost) {
      ++b;
    }
    const double sign = reach.is_upper ? 1.0 : -1.0;
    const auto cost = [&](std::size_t l, std::size_t j) {
      return sign * problem.layers[l][j].costs[b];
    };
    const int skipped = static_cast<int>(2 * b) + (reach.is_upper ? 0 : 1);
    for (const auto& [given, bound] :
         {std::pair(reach.with_others, skipped), std::pair(reach.alone, -2)}) {
      const auto expected = brute_force(problem, cost, bound);
      ASSERT_EQ(given.has_value(), expected.has_value()) << label << ", " << reach.cost;
      if (given) {
        const double total = sign * *expected + fixed_cost(problem, b);
        EXPECT_NEAR(*given, total, 1e-6 * total) << label << ", " << reach.cost;
      }
    }
    if (reach.with_others) {  // the advice must work
      Problem relaxed = problem;
      (reach.is_upper ? relaxed.budgets[b].at_most : relaxed.budgets[b].at_least) =
          reach.with_others;
      EXPECT_EQ(HighsSolver().solve(relaxed).status, SolveStatus::kOptimal) << label;
    }
  }
}

TEST(Solver, TakesTheCheapestDamage) {
  for (const auto& result :
       {HighsSolver().solve(two_layers()), ExhaustiveSolver().solve(two_layers())}) {
    ASSERT_EQ(result.status, SolveStatus::kOptimal);
    ASSERT_EQ(result.solutions.size(), 1U);
    EXPECT_EQ(choice_names(two_layers(), result.solutions[0].choices),
              (std::vector<std::string>{"half", "parent"}));
    EXPECT_EQ(result.solutions[0].objective, 0.25);
    EXPECT_EQ(result.solutions[0].costs, std::vector<double>{150.0});
    EXPECT_LE(result.solutions[0].gap, 1e-9);
  }
}

TEST(Solver, FixedCostsCountAgainstBudgets) {
  Problem problem = two_layers();
  problem.fixed_costs = {1.0};
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.solutions.size(), 1U);
  EXPECT_EQ(choice_names(problem, result.solutions[0].choices),
            (std::vector<std::string>{"half", "half"}));
  EXPECT_EQ(result.solutions[0].costs, std::vector<double>{101.0});
}

TEST(Solver, ParentItselfWhereEverythingFits) {
  Problem problem = two_layers();
  problem.budgets.clear();
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kOptimal);
  EXPECT_EQ(result.solutions[0].objective, 0.0);
  EXPECT_EQ(result.solutions[0].gap, 0.0);
  EXPECT_TRUE(result.solutions[0].proven);
}

TEST(Solver, EqualsBruteForceOnRandomProblems) {
  int infeasible = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomProblemOptions options;
    options.seed = seed;
    options.num_costs = 1 + static_cast<int>(seed % 3);
    options.num_layers = 2 + static_cast<int>(seed / 3 % 5);
    options.whole_costs = seed % 5 < 2;
    options.tightness = 0.1 + 0.2 * static_cast<double>(seed % 4);
    options.num_covers = static_cast<int>(seed / 2 % 3);
    Problem problem = random_problem(options);
    problem.num_solutions = 1 + static_cast<std::int64_t>(seed % 4);
    problem.max_shared_fraction = 0.25 * static_cast<double>(seed % 5);
    const SolveResult result = HighsSolver().solve(problem);
    const std::string label = "seed " + std::to_string(seed);
    ASSERT_NE(result.status, SolveStatus::kUnknown) << label;
    EXPECT_EQ(result.status == SolveStatus::kInfeasible, result.solutions.empty()) << label;
    expect_matches_brute_force(problem, result, label);
    if (result.infeasibility) {
      ++infeasible;
      expect_reach_matches(problem, *result.infeasibility, label);
    }
    const SolveResult oracle = ExhaustiveSolver().solve(problem);
    EXPECT_EQ(oracle.status, result.status) << label;
    ASSERT_EQ(oracle.solutions.size(), result.solutions.size()) << label;
  }
  EXPECT_GT(infeasible, 20) << "the random problems no longer test infeasible answers";
}

TEST(Solver, ExhaustiveEqualsBruteForce) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Problem problem = random_problem({.num_costs = 3, .num_covers = 1, .seed = seed});
    problem.num_solutions = 3;
    problem.max_shared_fraction = 0.5;
    const std::string label = "seed " + std::to_string(seed);
    const SolveResult result = ExhaustiveSolver().solve(problem);
    expect_matches_brute_force(problem, result, label);
    if (result.infeasibility) {
      expect_reach_matches(problem, *result.infeasibility, label);
    }
  }
}

TEST(Solver, BudgetsOfOneByteLessThanASumAreKept) {
  // Sums of 1e10 that differ by one byte: beyond any relative tolerance of a solver.
  Problem problem;
  problem.cost_names = {"bytes"};
  for (int l = 0; l < 4; ++l) {
    problem.layers.push_back({{"big", 0.0, {2'500'000'001.0}}, {"small", 1.0, {2'500'000'000.0}}});
  }
  for (int allowed = 0; allowed <= 4; ++allowed) {
    problem.budgets = {{.cost = "bytes", .at_most = 1e10 + allowed, .at_least = std::nullopt}};
    const SolveResult result = HighsSolver().solve(problem);
    ASSERT_EQ(result.status, SolveStatus::kOptimal);
    EXPECT_EQ(result.solutions[0].objective, 4.0 - allowed);
    EXPECT_LE(result.solutions[0].costs[0], 1e10 + allowed);
  }
}

TEST(Solver, ManySumsJustAboveABudgetOfSeconds) {
  // Equal costs in every layer: thousands of assignments overstep the budget by the same 1e-11 of
  // it.
  Problem problem;
  problem.cost_names = {"seconds"};
  for (int l = 0; l < 12; ++l) {
    problem.layers.push_back({{"parent", 0.0, {0.1}}, {"none", 1.0 + 1e-3 * l, {0.0}}});
  }
  problem.budgets = {{.cost = "seconds", .at_most = 0.6 * (1.0 - 1e-11), .at_least = std::nullopt}};
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_FALSE(result.solutions.empty());
  EXPECT_LE(result.solutions[0].costs[0], 0.5 + 1e-9);
  EXPECT_NEAR(result.solutions[0].objective, 7.021, 1e-9);
}

TEST(Solver, TinyDifferencesBesideTerribleChoicesAreProven) {
  // Good choices differ by 1e-6, terrible ones cost 10 and 1e6: scaled to the largest score the
  // differences would vanish in the solver's tolerance.
  Problem problem;
  problem.cost_names = {"bytes"};
  for (int l = 0; l < 6; ++l) {
    problem.layers.push_back({{"parent", 0.0, {100.0}},
                              {"good", 1e-6 * (1.0 + 0.01 * l), {60.0}},
                              {"terrible", l == 0 ? 1e6 : 10.0, {0.0}}});
  }
  problem.budgets = {{.cost = "bytes", .at_most = 480.0, .at_least = std::nullopt}};
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kOptimal);
  EXPECT_NEAR(result.solutions[0].objective, 3.03e-6, 1e-13);
}

TEST(Solver, NegativeScores) {
  Problem problem = two_layers();
  problem.layers[0][1].score = -5.0;
  problem.layers[1][2].score = -0.5;
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kOptimal);
  EXPECT_EQ(result.solutions[0].objective, -5.5);
}

TEST(Solver, LaterSolutionsDiffer) {
  Problem problem = test::large_problem(10, 3);
  problem.num_solutions = 4;
  problem.max_shared_fraction = 0.7;
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.solutions.size(), 4U);
  for (std::size_t a = 0; a < 4; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      EXPECT_LE(count_shared(result.solutions[a].choices, result.solutions[b].choices), 7);
    }
    if (a > 0) {
      EXPECT_GE(result.solutions[a].objective, result.solutions[a - 1].objective * (1.0 - 1e-6));
    }
  }
}

// The size of a 70B parent's search: 80 layers, 54 choices, three budgets. Times are bench_mip's.
TEST(Solver, EightyLayersAreProven) {
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    for (const double cost_noise : {0.0, 0.05}) {
      const Problem problem = test::large_problem(80, seed, cost_noise);
      ASSERT_EQ(problem.layers.size(), 80U);
      ASSERT_EQ(problem.layers[0].size(), 54U);
      ASSERT_EQ(problem.budgets.size(), 3U);
      const SolveResult result = HighsSolver().solve(problem, {.time_limit_s = 600.0});
      ASSERT_EQ(result.status, SolveStatus::kOptimal) << seed;
      EXPECT_LE(result.solutions[0].gap, 1e-6) << seed;
      for (std::size_t k = 0; k < 3; ++k) {
        EXPECT_LE(result.solutions[0].costs[k], *problem.budgets[k].at_most * (1.0 + 1e-12));
      }
    }
  }
}

TEST(Solver, TwoRunsGiveTheSameAnswer) {
  const Problem problem = test::large_problem(20, 5);
  EXPECT_EQ(HighsSolver().solve(problem).solutions[0].choices,
            HighsSolver().solve(problem).solutions[0].choices);
}

TEST(Solver, NoTimeIsNoAnswer) {
  const SolveResult result = HighsSolver().solve(two_layers(), {.time_limit_s = 1e-9});
  EXPECT_EQ(result.status, SolveStatus::kUnknown);
  EXPECT_TRUE(result.solutions.empty());
  EXPECT_FALSE(result.infeasibility.has_value());
  const auto failure = solve_failure(result, {.time_limit_s = 1e-9});
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->kind, ErrorKind::kNumeric);
  EXPECT_THAT(failure->why, HasSubstr("none is ruled out"));
  EXPECT_FALSE(solve_failure(HighsSolver().solve(two_layers()), {}).has_value());
  Problem impossible = two_layers();
  impossible.budgets[0].at_least = 500.0;
  impossible.budgets[0].at_most.reset();
  EXPECT_EQ(solve_failure(HighsSolver().solve(impossible), {})->kind, ErrorKind::kInfeasible);
}

TEST(Solver, TimeLimitLeavesAnHonestGap) {
  const Problem problem = test::large_problem(80, 3);
  const SolveResult result = HighsSolver().solve(problem, {.time_limit_s = 0.01});
  if (result.status == SolveStatus::kFeasible) {
    EXPECT_GT(result.solutions[0].gap, kProvenGap);
    EXPECT_FALSE(result.solutions[0].proven);
  } else {
    EXPECT_EQ(result.status, SolveStatus::kUnknown);
    EXPECT_TRUE(result.solutions.empty());
  }
}

// One that a time limit stopped before it knew any bound.
class BoundlessSolver final : public Solver {
 protected:
  [[nodiscard]] Answer solve_one(const Problem& /*problem*/,
                                 const std::vector<Assignment>& /*earlier*/,
                                 const SolveOptions& /*options*/) const override {
    return {SolveStatus::kFeasible, {1, 1}, -std::numeric_limits<double>::infinity()};
  }
};

TEST(Solver, WithoutABoundTheBestOfEveryLayerIsOne) {
  const Problem problem = two_layers();
  const SolveResult result = BoundlessSolver().solve(problem);
  ASSERT_EQ(result.solutions.size(), 1U);
  double best = 0.0;
  for (const auto& choices : problem.layers) {
    best += std::ranges::min(choices, {}, &Choice::score).score;
  }
  EXPECT_EQ(result.solutions[0].bound, best);
  EXPECT_TRUE(std::isfinite(result.solutions[0].gap));
  EXPECT_FALSE(result.solutions[0].proven);
}

TEST(Solver, CallsBackBeforeEverySolution) {
  Problem problem = two_layers();
  std::int64_t calls = 0;
  const SolveOptions options{.before_each = [&] { ++calls; }};
  const SolveResult result = HighsSolver().solve(problem, options);
  EXPECT_EQ(calls, std::ssize(result.solutions) + (result.no_more_solutions ? 1 : 0));
  calls = 0;
  problem.budgets[0].at_least = 500.0;
  problem.budgets[0].at_most.reset();
  EXPECT_EQ(HighsSolver().solve(problem, options).status, SolveStatus::kInfeasible);
  EXPECT_EQ(calls, 3) << "one solution, and two to explain why there is none";
}

TEST(Solver, ExplainsOnlyIfAsked) {
  Problem problem = two_layers();
  problem.budgets[0].at_least = 500.0;
  problem.budgets[0].at_most.reset();
  const SolveResult result = HighsSolver().solve(problem, {.explain = false});
  EXPECT_EQ(result.status, SolveStatus::kInfeasible);
  EXPECT_FALSE(result.infeasibility.has_value());
}

TEST(Solver, InfeasibleNamesTheBudgetAndWhatIsAttainable) {
  Problem problem = two_layers();
  problem.cost_names = {"bytes", "seconds"};
  for (auto& choices : problem.layers) {
    choices[0].costs.push_back(1.0);
    choices[1].costs.push_back(2.0);  // smaller and slower
    choices[2].costs.push_back(4.0);
  }
  problem.budgets = {{.cost = "bytes", .at_most = 100.0, .at_least = std::nullopt},
                     {.cost = "seconds", .at_most = 3.0, .at_least = std::nullopt}};
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kInfeasible);
  const auto& budgets = result.infeasibility->budgets;
  ASSERT_EQ(budgets.size(), 2U);
  EXPECT_EQ(budgets[0].with_others, 150.0);
  EXPECT_EQ(budgets[0].alone, 0.0);
  EXPECT_EQ(budgets[1].with_others, 4.0);
  EXPECT_EQ(budgets[1].alone, 2.0);
  EXPECT_EQ(
      describe(*result.infeasibility),
      "bytes at most 100: the smallest attainable with the other budgets held is 150, on its "
      "own 0; seconds at most 3: the smallest attainable with the other budgets held is 4, on "
      "its own 2");
}

TEST(Solver, JointlyInfeasibleListsEveryBudget) {
  // Each of three costs is zero only for its own choice: any two budgets clash.
  Problem problem;
  problem.cost_names = {"a", "b", "c"};
  problem.layers = {
      {{"x", 0.0, {0.0, 1.0, 1.0}}, {"y", 0.0, {1.0, 0.0, 1.0}}, {"z", 0.0, {1.0, 1.0, 0.0}}}};
  for (const std::string& cost : problem.cost_names) {
    problem.budgets.push_back({.cost = cost, .at_most = 0.5, .at_least = std::nullopt});
  }
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kInfeasible);
  for (const BudgetReach& reach : result.infeasibility->budgets) {
    EXPECT_FALSE(reach.with_others.has_value());
    EXPECT_EQ(reach.alone, 0.0);
  }
  EXPECT_THAT(describe(*result.infeasibility),
              HasSubstr("c at most 0.5: the other budgets cannot be met even without this one, on "
                        "its own 0"));
}

TEST(Solver, CoverInTheWayIsNamed) {
  Problem problem = two_layers();
  problem.budgets[0].at_most = 40.0;
  problem.covers = {{.name = "one parent", .choices_per_layer = {{0}, {0}}, .at_least = 1}};
  const SolveResult result = HighsSolver().solve(problem);
  ASSERT_EQ(result.status, SolveStatus::kInfeasible);
  EXPECT_EQ(result.infeasibility->covers_in_way, std::vector<std::string>{"one parent"});
  EXPECT_EQ(result.infeasibility->budgets[0].with_others, 100.0);
  problem.covers[0].at_least = 3;
  const SolveResult impossible = HighsSolver().solve(problem);
  ASSERT_EQ(impossible.status, SolveStatus::kInfeasible);
  EXPECT_FALSE(impossible.infeasibility->budgets[0].alone.has_value());
  EXPECT_THAT(describe(*impossible.infeasibility),
              HasSubstr("no choice of blocks meets the side constraints"));
}

TEST(Solver, RefusesBrokenProblems) {
  Problem problem = two_layers();
  problem.budgets[0].cost = "byte";
  EXPECT_PUZZLE_ERROR((void)HighsSolver().solve(problem), ErrorKind::kUsage, "did you mean bytes?");
  EXPECT_PUZZLE_ERROR((void)HighsSolver().solve(two_layers(), {.time_limit_s = 0.0}),
                      ErrorKind::kUsage, "time limit");
  EXPECT_PUZZLE_ERROR((void)ExhaustiveSolver().solve(test::large_problem(80, 1)), ErrorKind::kUsage,
                      "use HiGHS");
}

TEST(SolverDeathTest, StopsOnASignal) {
  const auto solve_until_stopped = [] {
    install_interrupt_handlers();
    ::raise(SIGTERM);
    try {
      (void)HighsSolver().solve(test::large_problem(80, 2));
    } catch (const Error& error) {
      std::_Exit(exit_code(error.kind()));
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(solve_until_stopped(), ::testing::ExitedWithCode(130), "");
}

}  // namespace
}  // namespace puzzle
