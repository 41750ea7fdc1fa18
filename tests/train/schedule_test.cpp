#include "puzzle/train/schedule.h"

#include <gtest/gtest.h>

namespace puzzle {
namespace {

TEST(Schedule, RisesLinearlyThenFallsToTheFinalFraction) {
  const ScheduleOptions options{.warmup_fraction = 0.1, .final_fraction = 0.2};
  EXPECT_DOUBLE_EQ(schedule_factor(options, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor(options, 9, 100), 1.0);
  double before = 1.0;
  for (int step = 10; step < 100; ++step) {
    const double factor = schedule_factor(options, step, 100);
    EXPECT_LT(factor, before);
    before = factor;
  }
  EXPECT_NEAR(before, 0.2, 1e-3);
  EXPECT_NEAR(schedule_factor(options, 55, 100), 0.6, 0.02);  // half way down the cosine
}

TEST(Schedule, WorksForOneStepAndWithoutWarmUp) {
  EXPECT_GT(schedule_factor({.warmup_fraction = 0.0}, 0, 1), 0.0);
  EXPECT_DOUBLE_EQ(schedule_factor({.warmup_fraction = 1.0}, 0, 1), 1.0);
}

}  // namespace
}  // namespace puzzle
