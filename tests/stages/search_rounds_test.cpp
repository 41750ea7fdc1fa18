#include "puzzle/stages/search_rounds.h"

#include <cmath>

#include <gtest/gtest.h>

#include "puzzle/mip/highs_solver.h"

namespace puzzle {
namespace {

Problem stack_of(std::size_t layers, double at_most) {
  Problem problem;
  problem.cost_names = {"size"};
  for (std::size_t l = 0; l < layers; ++l) {
    const double weight = 0.01 + 0.01 * static_cast<double>(l);
    problem.layers.push_back({{"whole", 0.0, {100.0}},
                              {"half", weight, {50.0}},
                              {"quarter", 2.5 * weight, {25.0}},
                              {"gone", 6.0 * weight, {0.0}}});
  }
  problem.budgets = {{"size", at_most, std::nullopt}};
  return problem;
}

std::optional<Assignment> solved(const Problem& problem) {
  const SolveResult result = HighsSolver().solve(problem);
  return result.solutions.empty() ? std::nullopt : std::optional(result.solutions.front().choices);
}

// Changes that a world of pure sums would give.
BlockChanges additive(const Problem& problem, const Assignment& child) {
  BlockChanges changes;
  for (std::size_t l = 0; l < child.size(); ++l) {
    changes.emplace_back();
    for (const Choice& choice : problem.layers[l]) {
      changes.back()[choice.name] = {choice.score - problem.layers[l][child[l]].score, 0.0};
    }
  }
  return changes;
}

TEST(SearchRounds, InAWorldOfSumsTheyFindTheOneShotOptimum) {
  const Problem problem = stack_of(8, 400.0);
  const Assignment start(8, 0);
  std::int64_t asked = 0;
  const auto found = search_in_rounds(
      problem, start, {.rounds = 4, .round_layers = 8},
      [&](const Assignment& child) {
        ++asked;
        return additive(problem, child);
      },
      solved);
  ASSERT_TRUE(found);
  EXPECT_EQ(asked, 3);  // the first round has the scores
  EXPECT_NEAR(evaluate(problem, *found).objective, evaluate(problem, *solved(problem)).objective,
              1e-9);
}

TEST(SearchRounds, EachGoesPartOfTheWayAndChangesFewLayers) {
  const Problem problem = stack_of(8, 400.0);
  const Assignment start(8, 0);
  std::vector<Assignment> rounds = {start};
  const auto found = search_in_rounds(
      problem, start, {.rounds = 4, .round_layers = 4},
      [&](const Assignment& child) {
        rounds.push_back(child);
        return additive(problem, child);
      },
      solved);
  ASSERT_TRUE(found);
  rounds.push_back(*found);
  ASSERT_EQ(rounds.size(), 5U);
  for (std::size_t r = 1; r < rounds.size(); ++r) {
    const double share = static_cast<double>(r) / 4.0;
    EXPECT_LE(evaluate(problem, rounds[r]).costs[0], 800.0 * std::pow(0.5, share) + 1e-9);
    EXPECT_GE(count_shared(rounds[r], rounds[r - 1]), 4);
  }
  EXPECT_GT(evaluate(problem, rounds[1]).costs[0], 400.0);
}

TEST(SearchRounds, WhatIsLearntAroundTheChildCounts) {
  const Problem problem = stack_of(4, 350.0);
  // Around any child, halving layer 3 costs nothing and all else a lot: the scores say otherwise.
  const auto found = search_in_rounds(
      problem, Assignment(4, 0), {.rounds = 2},
      [&](const Assignment& child) {
        BlockChanges changes = additive(problem, child);
        for (std::size_t l = 0; l < 4; ++l) {
          for (auto& [name, change] : changes[l]) {
            const bool is_own = name == problem.layers[l][child[l]].name;
            change.value = is_own ? 0.0 : (name == "whole" ? -0.2 : (l == 3 ? 0.0 : 0.25));
          }
        }
        return changes;
      },
      solved);
  ASSERT_TRUE(found);
  EXPECT_EQ((*found)[0], 0U);
  EXPECT_NE((*found)[3], 0U);
  EXPECT_EQ((*solved(problem))[3], 0U);
}

TEST(SearchRounds, TooFewLayersARoundBecomeMore) {
  const Problem problem = stack_of(8, 10.0);  // nearly all must go at once
  const auto found = search_in_rounds(
      problem, Assignment(8, 0), {.rounds = 1, .round_layers = 1},
      [&](const Assignment& child) { return additive(problem, child); }, solved);
  ASSERT_TRUE(found);
  EXPECT_TRUE(is_feasible(problem, *found));
  EXPECT_FALSE(search_in_rounds(
      stack_of(8, 100.0), Assignment(8, 0), {.rounds = 2},
      [&](const Assignment& child) { return additive(problem, child); },
      [](const Problem&) { return std::optional<Assignment>(); }));
}

TEST(SearchRounds, AnExactScoreBeyondSecondOrderCounts) {
  const Problem problem = [] {
    Problem p = stack_of(2, 100.0);
    p.layers[0][3].score = 9.6;
    return p;
  }();
  const Assignment child = {1, 0};
  BlockChanges changes = additive(problem, child);
  changes[0]["gone"].value = 0.8;
  changes[0]["whole"].value = -0.5;
  changes[1]["gone"].value = 0.05;
  const Problem around = with_changes(problem, changes, child);
  EXPECT_NEAR(around.layers[0][3].score, 9.6 - 0.01, 1e-12);
  EXPECT_EQ(around.layers[0][0].score, -0.5);
  EXPECT_EQ(around.layers[0][1].score, 0.0);
  EXPECT_EQ(around.layers[1][3].score, 0.05);  // its own score is below the limit
  EXPECT_EQ(around.layers[1][3].costs, problem.layers[1][3].costs);
}

// The textbook posterior of a normal prior, with the variance of the surroundings worked out here.
TEST(SearchRounds, NoisyEstimatesCountLess) {
  const Problem problem = stack_of(1, 100.0);
  const std::vector<double> scores = {0.0, 0.01, 0.025, 0.06};
  const std::vector<double> estimates = {0.0, 0.03, 0.02, 0.09};
  const std::vector<double> errors = {0.0, 0.01, 0.001, 0.02};
  BlockChanges changes(1);
  double surprises = 0.0;
  double noises = 0.0;
  double sizes = 0.0;
  for (std::size_t c = 1; c < 4; ++c) {
    changes[0][problem.layers[0][c].name] = {estimates[c], errors[c]};
    surprises += std::pow(estimates[c] - scores[c], 2);
    noises += errors[c] * errors[c];
    sizes += scores[c] * scores[c];
  }
  changes[0]["whole"] = {};
  const double factor = (surprises - noises) / sizes;
  ASSERT_GT(factor, 0.0);
  const Problem around = with_changes(problem, changes, {0});
  for (std::size_t c = 1; c < 4; ++c) {
    const double weight_of_prior = 1.0 / (factor * scores[c] * scores[c]);
    const double weight = 1.0 / (errors[c] * errors[c]);
    EXPECT_NEAR(around.layers[0][c].score,
                (weight_of_prior * scores[c] + weight * estimates[c]) / (weight_of_prior + weight),
                1e-12);
  }
  // Noise that explains all surprises leaves the scores alone.
  for (auto& [name, change] : changes[0]) {
    change.standard_error = 1.0;
  }
  EXPECT_NEAR(with_changes(problem, changes, {0}).layers[0][3].score, 0.06, 1e-12);
}

TEST(SearchRounds, BoundsFromBelowWaitForTheLastRound) {
  Problem problem = stack_of(2, 100.0);
  problem.budgets[0].at_least = 60.0;
  const Problem half = part_of_the_way(problem, {0, 0}, 0.5);
  EXPECT_NEAR(*half.budgets[0].at_most, std::sqrt(200.0 * 100.0), 1e-9);
  EXPECT_EQ(*half.budgets[0].at_least, 60.0);
  EXPECT_EQ(*part_of_the_way(problem, {3, 3}, 0.5).budgets[0].at_least, 0.0);
  EXPECT_EQ(*part_of_the_way(problem, {3, 3}, 1.0).budgets[0].at_least, 60.0);
  EXPECT_EQ(*part_of_the_way(problem, {2, 2}, 0.5).budgets[0].at_most, 100.0);  // met already
}

}  // namespace
}  // namespace puzzle
