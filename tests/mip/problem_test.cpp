#include "puzzle/mip/problem.h"

#include <limits>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

Problem small_problem() {
  Problem problem;
  problem.cost_names = {"bytes", "seconds"};
  problem.layers = {{{"parent", 0.0, {100.0, 0.1}}, {"half", 0.5, {50.0, 0.2}}},
                    {{"parent", 0.0, {100.0, 0.1}}, {"none", 2.0, {0.0, 0.0}}}};
  problem.fixed_costs = {7.0, 0.3};
  problem.budgets = {{.cost = "bytes", .at_most = 160.0, .at_least = std::nullopt}};
  problem.covers = {{.name = "one parent", .choices_per_layer = {{0}, {0}}, .at_least = 1}};
  return problem;
}

TEST(Problem, EvaluatesScoresAndCosts) {
  const Evaluation sums = evaluate(small_problem(), {1, 1});
  EXPECT_EQ(sums.objective, 2.5);
  EXPECT_EQ(sums.costs, (std::vector<double>{57.0, 0.3 + 0.2}));
}

TEST(Problem, FeasibleNeedsBudgetsAndCovers) {
  const Problem problem = small_problem();
  EXPECT_FALSE(is_feasible(problem, {0, 0}));  // 207 bytes
  EXPECT_TRUE(is_feasible(problem, {1, 0}));
  EXPECT_FALSE(is_feasible(problem, {1, 1}));  // no parent left
  Problem bounded = problem;
  bounded.budgets[0].at_least = 158.0;
  EXPECT_FALSE(is_feasible(bounded, {1, 0}));
}

TEST(Problem, RoundingOfASumPassesARealExcessDoesNot) {
  EXPECT_TRUE(is_at_most(0.1 + 0.2, 0.3));
  EXPECT_TRUE(is_at_most(1e10, 1e10));
  EXPECT_FALSE(is_at_most(1e10 + 1.0, 1e10));
  EXPECT_FALSE(is_at_most(1e-3 * (1.0 + 1e-11), 1e-3));
  EXPECT_FALSE(is_at_most(1e-300, 0.0));
}

TEST(Problem, SharedLayersRoundDownButForgiveDecimals) {
  Problem problem = small_problem();
  problem.layers.assign(100, problem.layers[0]);
  problem.max_shared_fraction = 0.29;  // 0.29 * 100 < 29 in doubles
  EXPECT_EQ(max_shared_layers(problem), 29);
  problem.max_shared_fraction = 0.299;
  EXPECT_EQ(max_shared_layers(problem), 29);
  problem.max_shared_fraction = 1.0;  // still another solution each time
  EXPECT_EQ(max_shared_layers(problem), 99);
  EXPECT_EQ(count_shared({0, 1, 2}, {0, 2, 2}), 2);
}

TEST(Problem, RestrictingKeepsCoversAligned) {
  const Problem problem =
      restrict_choices(small_problem(), [](std::size_t layer, const Choice& choice) {
        return layer == 0 ? choice.name == "half" : true;
      });
  ASSERT_EQ(problem.layers[0].size(), 1U);
  EXPECT_TRUE(problem.covers[0].choices_per_layer[0].empty());
  EXPECT_EQ(problem.covers[0].choices_per_layer[1], std::vector<std::size_t>{0});
  EXPECT_TRUE(is_feasible(problem, {0, 0}));
  EXPECT_PUZZLE_ERROR(
      (void)restrict_choices(
          small_problem(), [](std::size_t, const Choice& choice) { return choice.name == "half"; }),
      ErrorKind::kUsage, "layer 1");
}

TEST(Problem, BrokenProblemsAreNamed) {
  struct Case {
    const char* message;
    void (*breakage)(Problem&);
  };
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Case> cases = {
      {"expected 1 to", [](Problem& p) { p.layers.clear(); }},
      {"layer 1 has 0 choices", [](Problem& p) { p.layers[1].clear(); }},
      {"layer 0, choice \"half\": the score is nan",
       [](Problem& p) { p.layers[0][1].score = kNan; }},
      {"choice \"half\": the cost bytes is -1", [](Problem& p) { p.layers[0][1].costs[0] = -1.0; }},
      {"choice \"none\": the cost seconds is inf",
       [](Problem& p) { p.layers[1][1].costs[1] = std::numeric_limits<double>::infinity(); }},
      {"choice \"half\": found 1 costs, expected 2",
       [](Problem& p) { p.layers[0][1].costs.pop_back(); }},
      {"choice \"parent\": the name stands twice",
       [](Problem& p) { p.layers[0][1].name = "parent"; }},
      {"found 1 fixed costs", [](Problem& p) { p.fixed_costs.pop_back(); }},
      {"the fixed cost seconds is nan", [](Problem& p) { p.fixed_costs[1] = kNan; }},
      {"did you mean bytes?", [](Problem& p) { p.budgets[0].cost = "bites"; }},
      {"stands twice; keep the tighter", [](Problem& p) { p.budgets.push_back(p.budgets[0]); }},
      {"neither at_most nor at_least", [](Problem& p) { p.budgets[0].at_most.reset(); }},
      {"at_most is -3", [](Problem& p) { p.budgets[0].at_most = -3.0; }},
      {"at_least 161 is above at_most 160", [](Problem& p) { p.budgets[0].at_least = 161.0; }},
      {"a cost name stands twice", [](Problem& p) { p.cost_names[1] = "bytes"; }},
      {"cover \"one parent\": at_least is 0", [](Problem& p) { p.covers[0].at_least = 0; }},
      {"found lists for 1 layers", [](Problem& p) { p.covers[0].choices_per_layer.pop_back(); }},
      {"layer 1: choice index 2", [](Problem& p) { p.covers[0].choices_per_layer[1] = {2}; }},
      {"cover \"one parent\": the name stands twice",
       [](Problem& p) { p.covers.push_back(p.covers[0]); }},
      {"0 solutions", [](Problem& p) { p.num_solutions = 0; }},
      {"max_shared_fraction is 1.5", [](Problem& p) { p.max_shared_fraction = 1.5; }},
      {"max_shared_fraction is nan", [](Problem& p) { p.max_shared_fraction = kNan; }},
  };
  check_problem(small_problem(), ErrorKind::kUsage, "problem");
  for (const Case& broken : cases) {
    Problem problem = small_problem();
    broken.breakage(problem);
    EXPECT_PUZZLE_ERROR(check_problem(problem, ErrorKind::kUsage, "problem"), ErrorKind::kUsage,
                        broken.message);
  }
}

}  // namespace
}  // namespace puzzle
