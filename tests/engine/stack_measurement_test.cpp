#include "puzzle/engine/stack_measurement.h"

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/base/progress.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using Seconds = std::map<std::string, double>;

// A made-up machine whose sub-blocks take known times.
struct Machine {
  Seconds truth = {{"fixed", 2e-3},
                   {"attention/kv4", 4e-4},
                   {"attention/kv1", 3e-4},
                   {"ffn/w64", 6e-4},
                   {"ffn/w32", 3.5e-4}};
  StackPlan plan = {{{{"attention/kv4", 10}, {"ffn/w64", 10}},
                     {{"attention/kv4", 20}, {"ffn/w64", 20}},
                     {{"attention/kv1", 9}, {"attention/kv4", 1}, {"ffn/w64", 10}},
                     {{"attention/kv4", 1}, {"ffn/w64", 10}},
                     {{"attention/kv4", 10}, {"ffn/w32", 10}},
                     {{"attention/kv4", 5}, {"attention/kv1", 5}, {"ffn/w64", 5}, {"ffn/w32", 5}}},
                    {{Phase::kPrefill, 1, 8}, {Phase::kGenerate, 1, 12}}};
  std::int64_t calls = 0;

  [[nodiscard]] double whole(std::size_t stack) const {
    double sum = truth.at("fixed");
    for (const auto& [name, count] : plan.counts[stack]) {
      sum += static_cast<double>(count) * truth.at(name);
    }
    return sum;
  }
  // Prefill takes ten times as long as a step.
  template <class Factor>
  StackCosts measure(const TimingPolicy& policy, const Factor& factor, StackSamples before = {}) {
    set_progress_enabled(false);
    return measure_stacks(plan, policy,
                          {.time =
                               [&](std::size_t stack) {
                                 const double seconds = whole(stack) * factor(calls++, stack);
                                 return std::vector<double>{10.0 * seconds, seconds};
                               }},
                          std::move(before));
  }
  [[nodiscard]] std::int64_t passes() const {
    return calls / static_cast<std::int64_t>(plan.counts.size());
  }
};

double row_seconds(const StackCosts& costs, const std::string& name, Phase phase) {
  for (const MeasuredCost& row : costs.rows) {
    if (row.subblock == name && row.phase == phase) {
      return row.seconds;
    }
  }
  ADD_FAILURE() << "no row " << name;
  return 0.0;
}

void expect_truth(const StackCosts& costs, const Seconds& truth, double tolerance) {
  EXPECT_EQ(costs.rows.size(), 2 * truth.size());
  for (const auto& [name, seconds] : truth) {
    EXPECT_NEAR(row_seconds(costs, name, Phase::kGenerate), seconds, tolerance * seconds) << name;
    EXPECT_NEAR(row_seconds(costs, name, Phase::kPrefill), 10 * seconds, 10 * tolerance * seconds)
        << name;
  }
}

TEST(StackMeasurement, AQuietMachineTakesOneRound) {
  Machine machine;
  const StackCosts costs =
      machine.measure({.warmup_calls = 2, .samples = 3}, [](std::int64_t call, std::size_t) {
        return call < 12 ? 7.0 : 1.0;  // warm-up
      });
  expect_truth(costs, machine.truth, 1e-9);
  EXPECT_EQ(machine.passes(), 2 + 3);
  EXPECT_THAT(costs.doubts, testing::IsEmpty());
  EXPECT_LT(costs.worst_residual, 1e-9);
  for (const MeasuredCost& row : costs.rows) {
    EXPECT_EQ(row.samples, 3);
    EXPECT_NEAR(row.p10_s, row.seconds, 1e-12);
    EXPECT_NEAR(row.p90_s, row.seconds, 1e-12);
  }
}

TEST(StackMeasurement, DriftCancels) {
  // Ten per cent slower at the end: sequential timing of the stacks would put it into differences.
  Machine machine;
  const StackCosts costs = machine.measure(
      {.warmup_calls = 0, .samples = 8},
      [](std::int64_t call, std::size_t) { return 1.0 + 0.1 * static_cast<double>(call) / 48.0; });
  for (const auto& [name, seconds] : machine.truth) {
    EXPECT_NEAR(row_seconds(costs, name, Phase::kGenerate), 1.025 * seconds, 0.08 * seconds)
        << name;
  }
}

TEST(StackMeasurement, ADisturbedRoundIsFollowedByOthers) {
  Machine machine;
  std::mt19937_64 random(3);
  const StackCosts costs = machine.measure(
      {.warmup_calls = 0, .samples = 5, .max_rounds = 4}, [&](std::int64_t call, std::size_t) {
        return call < 30 && random() % 3 != 0 ? 1.0 + static_cast<double>(random() % 50) / 10.0
                                              : 1.0;
      });
  EXPECT_GT(machine.passes(), 5);
  EXPECT_LT(machine.passes(), 20) << "quiet enough before the last round";
  EXPECT_THAT(costs.doubts, testing::IsEmpty());
  expect_truth(costs, machine.truth, 1e-9);
}

TEST(StackMeasurement, WhatStaysNoisyIsNamed) {
  Machine machine;
  const StackCosts costs = machine.measure(
      {.warmup_calls = 0, .samples = 4, .max_spread = 0.05, .max_rounds = 2},
      [&](std::int64_t call, std::size_t stack) {
        return stack == 2 ? 1.0 + 0.1 * static_cast<double>(call / 6) : 1.0;  // no two passes alike
      });
  EXPECT_EQ(machine.passes(), 8);
  EXPECT_THAT(costs.doubts,
              testing::Contains(testing::AllOf(
                  testing::HasSubstr("stack of 9 x attention/kv1, 1 x attention/kv4, 10 x ffn/w64"),
                  testing::HasSubstr("generate of batch 1 at 12 tokens"),
                  testing::HasSubstr("spreads by"))));
}

// 2 % of noise on everything: that is more than the fixed time itself, and less than one tenth of
// any stack's.
TEST(StackMeasurement, WhatIsSmallAgainstTheWholeMayBeUncertain) {
  Machine machine;
  machine.truth["fixed"] = 1e-6;
  const auto times_doubted = [&](double max_spread) {
    int doubted = 0;
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      std::mt19937_64 random(seed);
      const StackCosts costs = machine.measure(
          {.warmup_calls = 0, .samples = 8, .max_spread = max_spread, .max_rounds = 1},
          [&](std::int64_t, std::size_t) {
            return 1.0 + 0.02 * static_cast<double>(random() % 100) / 100.0;
          });
      for (const std::string& doubt : costs.doubts) {
        doubted += doubt.starts_with("fixed") ? 1 : 0;
      }
    }
    return doubted;
  };
  EXPECT_EQ(times_doubted(0.1), 0);
  EXPECT_GT(times_doubted(0.001), 3) << "otherwise they would be";
}

TEST(StackMeasurement, AnOrderThatCannotBeIsNamed) {
  Machine machine;
  machine.truth["attention/kv1"] = 5e-4;
  const StackCosts costs = machine.measure({.warmup_calls = 0, .samples = 3, .max_rounds = 2},
                                           [](std::int64_t, std::size_t) { return 1.0; });
  EXPECT_EQ(machine.passes(), 6) << "a second round might have told otherwise";
  EXPECT_THAT(costs.doubts,
              testing::ElementsAre("attention/kv1 prefill of batch 1 at 8 tokens: 5 ms, but "
                                   "attention/kv4 takes only 4 ms",
                                   "attention/kv1 generate of batch 1 at 12 tokens: 0.5 ms, but "
                                   "attention/kv4 takes only 0.4 ms"));
}

TEST(StackMeasurement, PartsThatDoNotAddUpAreNamed) {
  Machine machine;
  const StackCosts costs =
      machine.measure({.warmup_calls = 0, .samples = 3, .max_rounds = 1},
                      [](std::int64_t, std::size_t stack) { return stack == 5 ? 1.5 : 1.0; });
  EXPECT_GT(costs.worst_residual, kMaxStackResidual);
  EXPECT_THAT(costs.doubts, testing::Contains(testing::HasSubstr("its parts add up to")));
}

TEST(StackMeasurement, ATimeOfZeroIsNamed) {
  Machine machine;
  machine.plan.counts.pop_back();  // the stacks determine everything just so
  machine.truth["ffn/w32"] = -1e-4;
  const StackCosts costs = machine.measure({.warmup_calls = 0, .samples = 3, .max_rounds = 1},
                                           [](std::int64_t, std::size_t) { return 1.0; });
  EXPECT_THAT(costs.doubts, testing::Contains("ffn/w32 generate of batch 1 at 12 tokens: 0 s"));
}

// The bootstrap's range against what really happens when the whole measurement is repeated.
TEST(StackMeasurement, TheRangeOfARowIsThatOfRepeatedMeasurements) {
  std::mt19937_64 random(5);
  std::normal_distribution<double> noise(0.0, 0.01);
  std::map<std::string, std::vector<double>> answers;
  std::map<std::string, double> widths;
  constexpr int kRepeats = 60;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    Machine machine;
    const StackCosts costs =
        machine.measure({.warmup_calls = 0, .samples = 12, .max_rounds = 1},
                        [&](std::int64_t, std::size_t) { return 1.0 + noise(random); });
    for (const MeasuredCost& row : costs.rows) {
      if (row.phase == Phase::kGenerate) {
        answers[row.subblock].push_back(row.seconds);
        widths[row.subblock] += (row.p90_s - row.p10_s) / kRepeats;
      }
      EXPECT_LE(row.p10_s, row.seconds);
      EXPECT_GE(row.p90_s, row.seconds);
    }
  }
  for (const auto& [name, values] : answers) {
    const double real = quantile(values, 0.9) - quantile(values, 0.1);
    EXPECT_GT(widths[name] / real, 0.6) << name;
    EXPECT_LT(widths[name] / real, 1.6) << name;
  }
}

TEST(StackMeasurement, AnInterruptedRunGoesOn) {
  Machine machine;
  StackSamples kept;
  const TimingPolicy policy{.warmup_calls = 1, .samples = 4};
  const auto interrupted = [&](std::size_t stack) {
    if (++machine.calls > 20) {
      fail(ErrorKind::kInterrupted, "enough");
    }
    return std::vector<double>{10.0 * machine.whole(stack), machine.whole(stack)};
  };
  EXPECT_PUZZLE_ERROR(
      (void)measure_stacks(machine.plan, policy,
                           {.time = interrupted,
                            .after_pass = [&](const StackSamples& samples) { kept = samples; }}),
      ErrorKind::kInterrupted, "enough");
  ASSERT_EQ(kept.at(5).at(1).size(), 2U) << "a warm-up pass and two more of six stacks";
  machine.calls = 0;
  const StackCosts costs =
      machine.measure(policy, [](std::int64_t, std::size_t) { return 1.0; }, kept);
  EXPECT_EQ(machine.passes(), 1 + 2);
  expect_truth(costs, machine.truth, 1e-9);
  machine.calls = 0;
  kept = StackSamples(6, {{1, 1, 1, 1}, {1, 1, 1, 1}});
  (void)machine.measure(
      {.samples = 4, .max_rounds = 1}, [](std::int64_t, std::size_t) { return 1.0; }, kept);
  EXPECT_EQ(machine.calls, 0) << "nothing was missing";
}

TEST(StackMeasurement, OnePassIsMadeWhenThereIsNoTime) {
  Machine machine;
  const StackCosts costs = machine.measure({.samples = 5, .max_seconds = 0.0},
                                           [](std::int64_t, std::size_t) { return 1.0; });
  EXPECT_EQ(machine.passes(), 1);
  expect_truth(costs, machine.truth, 1e-9);
}

TEST(StackMeasurement, OverheadIsNoRow) {
  const StackPlan plan{{{{"fixed", 10}}, {{"fixed", 5}}, {{"ffn/w8", 10}}, {{"ffn/w8", 5}}},
                       {{Phase::kGenerate, 1, 1}},
                       "overhead"};
  const std::vector<double> seconds = {10.5, 5.5, 20.5, 10.5};
  set_progress_enabled(false);
  const StackCosts costs = measure_stacks(
      plan, {.warmup_calls = 0},
      {.time = [&](std::size_t stack) { return std::vector<double>{seconds[stack]}; }});
  ASSERT_EQ(costs.rows.size(), 2U);
  EXPECT_NEAR(row_seconds(costs, "fixed", Phase::kGenerate), 1.0, 1e-9);
  EXPECT_NEAR(row_seconds(costs, "ffn/w8", Phase::kGenerate), 2.0, 1e-9);
}

}  // namespace
}  // namespace puzzle
