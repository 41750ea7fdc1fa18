#include "puzzle/engine/stack_times.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(StackTimes, TwoStacksGiveTheDifference) {
  // One and ten copies: (t10 - t1) / 9 each, and what is left is fixed.
  const SubblockTimes times =
      solve_subblock_times({{{{"ffn/w8", 1}}, 3.0}, {{{"ffn/w8", 10}}, 12.0}});
  EXPECT_NEAR(times.seconds.at("ffn/w8"), 1.0, 1e-12);
  EXPECT_NEAR(times.seconds.at("fixed"), 2.0, 1e-12);
  EXPECT_NEAR(times.residual_max, 0.0, 1e-12);
  EXPECT_TRUE(times.at_zero.empty());
}

TEST(StackTimes, RecoversManySubblocksFromNoisyStacks) {
  const std::map<std::string, double> truth = {{"fixed", 5e-3},
                                               {"attention/kv3", 4e-4},
                                               {"attention/kv1", 3e-4},
                                               {"ffn/w8", 9e-4},
                                               {"ffn/w4", 5e-4}};
  std::mt19937 generator(7);
  std::uniform_real_distribution<double> noise(0.99, 1.01);
  std::vector<StackTiming> stacks;
  for (const auto& [name, unused] : truth) {
    for (const std::int64_t copies : {2, 10, 20}) {
      if (name != "fixed") {
        StackTiming stack{{{"attention/kv3", 1}, {"ffn/w8", 1}}, 0.0};
        stack.counts[name] += copies;
        stack.seconds = truth.at("fixed");
        for (const auto& [part, count] : stack.counts) {
          stack.seconds += static_cast<double>(count) * truth.at(part);
        }
        stack.seconds *= noise(generator);
        stacks.push_back(stack);
      }
    }
  }
  const SubblockTimes times = solve_subblock_times(stacks);
  for (const auto& [name, seconds] : truth) {
    EXPECT_NEAR(times.seconds.at(name) / seconds, 1.0, name == "fixed" ? 0.05 : 0.06) << name;
  }
  EXPECT_GT(times.residual_rms, 1e-4);
  EXPECT_LT(times.residual_max, 0.02);
  EXPECT_EQ(times.residuals.size(), stacks.size());
}

// Σ (predicted / measured - 1)², written out.
double stack_error(const std::vector<StackTiming>& stacks,
                   const std::map<std::string, double>& times) {
  double error = 0.0;
  for (const StackTiming& stack : stacks) {
    double predicted = times.at("fixed");
    for (const auto& [name, count] : stack.counts) {
      predicted += static_cast<double>(count) * times.at(name);
    }
    error += std::pow(predicted / stack.seconds - 1.0, 2);
  }
  return error;
}

TEST(StackTimes, HoldsAtZeroWhatWouldBeNegative) {
  const std::vector<StackTiming> stacks = {{{{"a", 1}}, 10.0},
                                           {{{"a", 1}, {"b", 10}}, 9.5},
                                           {{{"a", 10}}, 28.0},
                                           {{{"a", 10}, {"b", 10}}, 28.5}};
  const SubblockTimes times = solve_subblock_times(stacks);
  EXPECT_THAT(times.at_zero, testing::ElementsAre("b"));
  EXPECT_EQ(times.seconds.at("b"), 0.0);
  // Optimal: no small step that keeps every time >= 0 lowers the error.
  const double error = stack_error(stacks, times.seconds);
  for (const auto& [name, seconds] : times.seconds) {
    for (const double move : {1e-4, -1e-4}) {
      std::map<std::string, double> moved = times.seconds;
      moved[name] = std::max(0.0, seconds + move);
      EXPECT_GE(stack_error(stacks, moved), error) << name << " " << move;
    }
  }
}

TEST(StackTimes, AgreesWithABruteForceSearchOverZeroSets) {
  std::mt19937 generator(11);
  std::uniform_int_distribution<int> copies(0, 10);
  std::uniform_real_distribution<double> total(1.0, 4.0);
  for (int trial = 0; trial < 12; ++trial) {
    std::vector<StackTiming> stacks;
    for (int i = 0; i < 8; ++i) {
      stacks.push_back({{{"a", copies(generator)}, {"b", copies(generator)}}, total(generator)});
    }
    const SubblockTimes times = solve_subblock_times(stacks);
    const double error = stack_error(stacks, times.seconds);
    double best = error;
    for (const double fixed : {0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0}) {
      for (double a = 0.0; a < 0.4; a += 0.01) {
        for (double b = 0.0; b < 0.4; b += 0.01) {
          best = std::min(best, stack_error(stacks, {{"fixed", fixed}, {"a", a}, {"b", b}}));
        }
      }
    }
    EXPECT_GE(best, error - 1e-12) << trial;
    for (const auto& [name, seconds] : times.seconds) {
      EXPECT_GE(seconds, 0.0) << name;
    }
  }
}

TEST(StackTimes, NamesWhatTheStacksLeaveOpen) {
  // Attention and FFN always come in pairs.
  EXPECT_PUZZLE_ERROR((void)solve_subblock_times({{{{"attention/kv3", 1}, {"ffn/w8", 1}}, 1.0},
                                                  {{{"attention/kv3", 5}, {"ffn/w8", 5}}, 2.0},
                                                  {{{"attention/kv3", 9}, {"ffn/w8", 9}}, 3.0}}),
                      ErrorKind::kUsage, "do not determine the time of ffn/w8");
  EXPECT_PUZZLE_ERROR((void)solve_subblock_times({{{{"ffn/w8", 3}}, 1.0}}), ErrorKind::kUsage,
                      "1 stacks do not determine");
  EXPECT_PUZZLE_ERROR((void)solve_subblock_times({}), ErrorKind::kUsage, "fixed");
}

TEST(StackTimes, RefusesTimesThatAreNone) {
  EXPECT_PUZZLE_ERROR((void)solve_subblock_times({{{{"ffn/w8", 1}}, 0.0}}), ErrorKind::kNumeric,
                      "positive time");
  EXPECT_PUZZLE_ERROR((void)solve_subblock_times({{{{"ffn/w8", 1}}, std::nan("")}}),
                      ErrorKind::kNumeric, "positive time");
}

}  // namespace
}  // namespace puzzle
