#include "puzzle/mip/baselines.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "mip/random_problem.h"
#include "puzzle/mip/highs_solver.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::random_problem;

std::vector<std::string> names_of(const Problem& problem, const std::optional<Solution>& solution) {
  return solution ? choice_names(problem, solution->choices) : std::vector<std::string>{};
}

// Three layers of one cost; mean scores 0.5, 0.2, 2.
Problem three_layers() {
  Problem problem;
  problem.cost_names = {"bytes"};
  problem.layers = {{{"parent", 0.0, {100.0}}, {"half", 0.5, {50.0}}, {"none", 1.0, {0.0}}},
                    {{"parent", 0.0, {100.0}}, {"half", 0.2, {50.0}}, {"none", 0.4, {0.0}}},
                    {{"parent", 0.0, {100.0}}, {"half", 1.0, {50.0}}, {"none", 5.0, {0.0}}}};
  problem.budgets = {{.cost = "bytes", .at_most = 210.0, .at_least = std::nullopt}};
  return problem;
}

TEST(Greedy, FollowsThePaper) {
  // Share 70. Layer 1 (lowest mean) takes half and leaves 20; layer 0 has 90: half, leaves 40;
  // layer 2 has 110: parent.
  const Problem problem = three_layers();
  EXPECT_EQ(names_of(problem, solve_greedy(problem)),
            (std::vector<std::string>{"half", "half", "parent"}));
}

TEST(Greedy, SubtractsFixedCostsFirst) {
  Problem problem = three_layers();
  problem.fixed_costs = {90.0};  // share 40: none leaves 40, 80 fits half, leaves 30, 70 fits half
  EXPECT_EQ(names_of(problem, solve_greedy(problem)),
            (std::vector<std::string>{"half", "none", "half"}));
}

TEST(Greedy, ServesACoverBeforeTheLastLayersAreGone) {
  Problem problem = three_layers();
  problem.budgets[0].at_most = 60.0;  // shares of 20: none, none, then half
  EXPECT_EQ(names_of(problem, solve_greedy(problem)),
            (std::vector<std::string>{"none", "none", "half"}));
  problem.covers = {{.name = "two halves", .choices_per_layer = {{1}, {1}, {1}}, .at_least = 2}};
  EXPECT_FALSE(solve_greedy(problem).has_value());  // 100 bytes are needed
  problem.budgets[0].at_most = 100.0;
  const auto solution = solve_greedy(problem);
  ASSERT_TRUE(solution.has_value());
  EXPECT_LE(solution->costs[0], 100.0);
}

TEST(MaxCost, TakesTheMostParametersAndIgnoresScores) {
  Problem problem = three_layers();
  problem.cost_names.push_back("parameters");
  for (auto& choices : problem.layers) {
    for (Choice& choice : choices) {
      choice.costs.push_back(choice.name == "half" ? 90.0 : choice.costs[0]);
    }
  }
  const SolveResult result = solve_max_cost(HighsSolver(), problem, "parameters");
  ASSERT_EQ(result.status, SolveStatus::kOptimal);
  EXPECT_EQ(result.solutions[0].costs[1], 280.0);  // one parent, two halves: 200 of 210 bytes
  EXPECT_EQ(result.solutions[0].objective,
            evaluate(problem, result.solutions[0].choices).objective);
  EXPECT_PUZZLE_ERROR((void)solve_max_cost(HighsSolver(), problem, "params"), ErrorKind::kUsage,
                      "known are bytes, parameters");
}

TEST(Random, IsUniformAmongTheFeasible) {
  const Problem problem = three_layers();
  std::map<Assignment, int> counts;
  const int draws = 20'000;
  for (int i = 0; i < draws; ++i) {
    const auto solution = solve_random(HighsSolver(), problem, static_cast<std::uint64_t>(i));
    ASSERT_TRUE(solution.has_value());
    ++counts[solution->choices];
  }
  // 27 assignments; over 200 bytes are only {100,100,100} and three of 250.
  ASSERT_EQ(counts.size(), 23U);
  for (const auto& [assignment, count] : counts) {
    EXPECT_TRUE(is_feasible(problem, assignment));
    EXPECT_NEAR(count, draws / 23.0, 6.0 * std::sqrt(draws / 23.0));  // six standard deviations
  }
}

TEST(Random, WalksWhereFeasibleDrawsAreRare) {
  // 2^-26 or so of all assignments of 40 layers keep within 4 parents.
  Problem problem;
  problem.cost_names = {"bytes"};
  for (int l = 0; l < 40; ++l) {
    problem.layers.push_back({{"parent", 0.0, {1.0}}, {"none", 1.0, {0.0}}});
  }
  problem.budgets = {{.cost = "bytes", .at_most = 4.0, .at_least = std::nullopt}};
  double mean = 0.0;
  constexpr int kDraws = 60;
  for (std::uint64_t seed = 0; seed < kDraws; ++seed) {
    const auto solution = solve_random(HighsSolver(), problem, seed);
    ASSERT_TRUE(solution.has_value());
    ASSERT_TRUE(is_feasible(problem, solution->choices));
    mean += solution->costs[0] / kDraws;
  }
  // Uniform over sets of at most 4 of 40: weights 1, 40, 780, 9880, 91390 give a mean of 3.88.
  EXPECT_NEAR(mean, 3.88, 0.2);
  EXPECT_EQ(solve_random(HighsSolver(), problem, 3)->choices,
            solve_random(HighsSolver(), problem, 3)->choices);
}

TEST(Uniform, TakesTheBestNameThatFitsEverywhere) {
  Problem problem = three_layers();
  const auto best_of = [&] {
    const std::vector<Solution> found = solve_uniform(problem);
    return found.empty() ? std::nullopt : std::optional(found.front());
  };
  EXPECT_EQ(names_of(problem, best_of()), (std::vector<std::string>{"half", "half", "half"}));
  problem.num_solutions = 5;  // "whole" is beyond the budget
  EXPECT_EQ(solve_uniform(problem).size(), 2U);
  EXPECT_EQ(names_of(problem, best_of()), (std::vector<std::string>{"half", "half", "half"}));
  EXPECT_EQ(names_of(problem, solve_uniform(problem)[1]),
            (std::vector<std::string>{"none", "none", "none"}));
  problem.num_solutions = 1;
  problem.budgets[0].at_most = 100.0;
  EXPECT_EQ(names_of(problem, best_of()), (std::vector<std::string>{"none", "none", "none"}));
  problem.layers[1].pop_back();  // "none" is no longer there
  EXPECT_TRUE(solve_uniform(problem).empty());
  problem.layers[1] = {{"frozen", 0.0, {100.0}}};  // one choice only: no say in the matter
  EXPECT_EQ(names_of(problem, best_of()), (std::vector<std::string>{"none", "frozen", "none"}));
}

TEST(RestrictedSpace, DepthOnlyIsNeverBetterThanTheWholeSpace) {
  const Problem problem = test::large_problem(16, 4);
  const Problem depth_only = restrict_choices(problem, [](std::size_t, const Choice& choice) {
    return choice.name == "a0+f0" || choice.name == "a5+f8";
  });
  const SolveResult whole = HighsSolver().solve(problem);
  const SolveResult depth = HighsSolver().solve(depth_only);
  ASSERT_EQ(depth.status, SolveStatus::kOptimal);
  EXPECT_GT(depth.solutions[0].objective, whole.solutions[0].objective);
}

TEST(Baselines, MeetBudgetsAndAreNeverBetterThanTheOptimum) {
  int greedy_found = 0;
  int uniform_found = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    const Problem problem = random_problem({.num_layers = 5,
                                            .num_costs = 1 + static_cast<int>(seed % 3),
                                            .whole_costs = seed % 2 == 0,
                                            .num_covers = static_cast<int>(seed % 2),
                                            .seed = seed});
    const SolveResult best = HighsSolver().solve(problem);
    const auto random = solve_random(HighsSolver(), problem, seed);
    const auto greedy = solve_greedy(problem);
    const std::vector<Solution> uniforms = solve_uniform(problem);
    const auto uniform = uniforms.empty() ? std::nullopt : std::optional(uniforms.front());
    EXPECT_EQ(random.has_value(), best.status == SolveStatus::kOptimal) << seed;
    greedy_found += greedy ? 1 : 0;
    uniform_found += uniform ? 1 : 0;
    for (const auto& solution : {random, greedy, uniform}) {
      if (solution) {
        ASSERT_FALSE(best.solutions.empty()) << seed;
        EXPECT_TRUE(is_feasible(problem, solution->choices)) << seed;
        EXPECT_GE(solution->objective, best.solutions[0].objective * (1.0 - 1e-6)) << seed;
      }
    }
  }
  EXPECT_GT(greedy_found, 20);
  EXPECT_GT(uniform_found, 5);
}

}  // namespace
}  // namespace puzzle
