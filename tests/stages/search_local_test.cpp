#include "puzzle/stages/search_local.h"

#include <set>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

// Three choices a layer: dear, middling, cheap. Scores are what the search believes.
Problem believed(std::size_t layers) {
  Problem problem;
  problem.cost_names = {"size"};
  for (std::size_t l = 0; l < layers; ++l) {
    const double weight = 1.0 + 0.1 * static_cast<double>(l);
    problem.layers.push_back(
        {{"dear", 0.0, {3.0}}, {"middling", 0.3 * weight, {2.0}}, {"cheap", weight, {1.0}}});
  }
  problem.budgets = {{"size", 2.0 * static_cast<double>(layers), std::nullopt}};
  return problem;
}

// What is true: a table of its own, with a term of neighbours that no sum of scores has.
double true_kl(const Assignment& child) {
  double sum = 0.0;
  for (std::size_t l = 0; l < child.size(); ++l) {
    const auto c = static_cast<double>(child[l]);
    sum += c * (1.0 + 0.25 * static_cast<double>((7 * l + 3 * child[l]) % 5));
    if (l > 0 && child[l] == 2 && child[l - 1] == 2) {
      sum += 1.5;
    }
  }
  return sum;
}

MeasuredKl as_kl(double value) {
  return {.unit_sums = {value * 8, value * 8}, .unit_tokens = {8, 8}};
}

struct Recorder {
  std::vector<Assignment> children;
  std::vector<Assignment> bases;
  MeasuredKl operator()(const Assignment& child, const Assignment& base) {
    children.push_back(child);
    bases.push_back(base);
    return as_kl(true_kl(child));
  }
};

LocalResult run_local(const Problem& problem, const Assignment& start, std::int64_t forwards,
                      Recorder& recorder) {
  return search_locally(problem, start, as_kl(true_kl(start)), forwards, std::ref(recorder));
}

TEST(SearchLocal, WithEnoughForwardsNoSwapThatIsPredictedToGainAnywhereIsLeft) {
  const Problem problem = believed(4);
  const Assignment start = {1, 1, 1, 1};
  Recorder recorder;
  const LocalResult result = run_local(problem, start, 10000, recorder);
  EXPECT_LT(true_kl(result.choices), true_kl(start));
  EXPECT_NEAR(result.kl.mean().value, true_kl(result.choices), 1e-12);
  EXPECT_TRUE(is_feasible(problem, result.choices));
  EXPECT_GT(result.num_accepted, 0);
  EXPECT_EQ(result.num_measured, std::ssize(recorder.children));
  // One layer changed, by loops: none is better.
  for (std::size_t l = 0; l < 4; ++l) {
    for (std::size_t c = 0; c < 3; ++c) {
      Assignment other = result.choices;
      other[l] = c;
      if (is_feasible(problem, other)) {
        EXPECT_GE(true_kl(other), true_kl(result.choices) - 1e-12);
      }
    }
  }
}

TEST(SearchLocal, EveryChildIsNewFeasibleAndNearItsBase) {
  Problem problem = believed(5);
  problem.covers = {{"two middling ones", {{1}, {1}, {1}, {1}, {1}}, 2}};
  Recorder recorder;
  (void)run_local(problem, {1, 1, 1, 1, 1}, 200, recorder);
  std::set<Assignment> seen = {{1, 1, 1, 1, 1}};
  for (std::size_t i = 0; i < recorder.children.size(); ++i) {
    EXPECT_TRUE(seen.insert(recorder.children[i]).second);
    EXPECT_TRUE(is_feasible(problem, recorder.children[i]));
    EXPECT_GE(count_shared(recorder.children[i], recorder.bases[i]), 3);
  }
  EXPECT_GT(recorder.children.size(), 10U);
}

TEST(SearchLocal, ForwardsBoundIt) {
  for (const std::int64_t forwards : {0, 1, 7}) {
    Recorder recorder;
    const LocalResult result = run_local(believed(6), {1, 1, 1, 1, 1, 1}, forwards, recorder);
    EXPECT_EQ(result.num_measured, forwards);
    EXPECT_EQ(std::ssize(recorder.children), forwards);
    EXPECT_LE(result.kl.mean().value, true_kl({1, 1, 1, 1, 1, 1}));
  }
}

// A choice that disappoints is not what the next swaps are made of.
TEST(SearchLocal, LearnsWhichChoicesDisappoint) {
  Problem problem = believed(6);
  problem.layers[0][0].score = -5.0;  // looks like a gain in every pair
  std::int64_t with_it = 0;
  const auto measure = [&](const Assignment& child, const Assignment& /*base*/) {
    with_it += child[0] == 0 ? 1 : 0;
    return as_kl(child[0] == 0 ? 50.0 : 10.0);
  };
  const LocalResult result = search_locally(problem, {1, 1, 1, 1, 1, 1}, as_kl(5.0), 12, measure);
  EXPECT_EQ(result.num_measured, 12);
  EXPECT_EQ(result.num_accepted, 0);
  EXPECT_GE(with_it, 1);
  EXPECT_LE(with_it, 3);
}

}  // namespace
}  // namespace puzzle
