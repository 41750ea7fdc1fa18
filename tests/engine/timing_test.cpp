#include "puzzle/engine/timing.h"

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

// Plays back recorded seconds and counts the calls.
struct Playback {
  std::vector<double> seconds;
  std::size_t next = 0;

  double operator()() { return seconds.at(next++); }
};

// A call of a single part.
Timing time_one(const std::function<double()>& run_once, const TimingPolicy& policy) {
  return measure_seconds([&] { return std::vector<double>{run_once()}; }, policy).front();
}

TEST(Timing, QuantilesInterpolateBetweenOrderStatistics) {
  const std::vector<double> values = {5, 1, 4, 2, 3};
  EXPECT_DOUBLE_EQ(quantile(values, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile(values, 0.5), 3.0);
  EXPECT_DOUBLE_EQ(quantile(values, 0.1), 1.4);
  EXPECT_DOUBLE_EQ(quantile(values, 0.9), 4.6);
  EXPECT_DOUBLE_EQ(quantile(values, 1.0), 5.0);
  EXPECT_DOUBLE_EQ(quantile({7.0}, 0.9), 7.0);
}

TEST(Timing, TheQuieterHalfIgnoresDisturbances) {
  EXPECT_DOUBLE_EQ(quiet_seconds({7.0}), 7.0);
  EXPECT_DOUBLE_EQ(quiet_seconds({9.0, 1.0, 50.0, 1.2, 1.1}), (1.0 + 1.1 + 1.2) / 3);
  EXPECT_DOUBLE_EQ(quiet_seconds({9, 8, 7, 6, 5, 4, 30, 2, 1, 3, 11, 12, 13, 14, 15, 16}), 2.5);
  EXPECT_DOUBLE_EQ(quiet_seconds({3.0, 1.0}), 2.0);
  EXPECT_DOUBLE_EQ(quiet_spread({9.0, 1.0, 50.0, 1.2, 1.1}), (1.2 - 1.0) / ((1.0 + 1.1 + 1.2) / 3));
  EXPECT_DOUBLE_EQ(quiet_spread({7.0}), 0.0);
  EXPECT_DOUBLE_EQ(quiet_spread({0.0, 0.0}), 0.0);
}

TEST(Timing, StopsAfterAQuietRoundAndLeavesWarmUpOut) {
  Playback calls{{9.0, 8.0, 1.00, 1.01, 0.99, 1.02}};
  const Timing timing = time_one(
      std::ref(calls), {.warmup_calls = 2, .samples = 4, .max_spread = 0.1, .max_rounds = 3});
  EXPECT_EQ(calls.next, 6U);
  EXPECT_DOUBLE_EQ(timing.median_s, 1.005);
  EXPECT_EQ(timing.samples, 4);
  EXPECT_EQ(timing.rounds, 1);
}

TEST(Timing, RepeatsANoisyRoundAndReportsTheQuietest) {
  Playback calls{{1, 2, 3, /**/ 1.0, 1.2, 1.1, /**/ 2, 4, 6}};
  const Timing timing = time_one(
      std::ref(calls), {.warmup_calls = 0, .samples = 3, .max_spread = 0.05, .max_rounds = 3});
  EXPECT_EQ(calls.next, 9U);
  EXPECT_DOUBLE_EQ(timing.median_s, 1.1);
  EXPECT_NEAR(timing.spread(), (1.18 - 1.02) / 1.1, 1e-12);
  EXPECT_EQ(timing.rounds, 3);
}

TEST(Timing, ANoisyPartMakesTheWholeRoundNoisy) {
  std::vector<std::vector<double>> script = {{1, 1}, {1, 9}, {2, 5}, {2, 5}};
  std::size_t next = 0;
  const std::vector<Timing> timings =
      measure_seconds([&] { return script.at(next++); },
                      {.warmup_calls = 0, .samples = 2, .max_spread = 0.1, .max_rounds = 5});
  EXPECT_EQ(next, 4U);
  ASSERT_EQ(timings.size(), 2U);
  EXPECT_DOUBLE_EQ(timings[0].median_s, 2.0);
  EXPECT_DOUBLE_EQ(timings[1].median_s, 5.0);
}

TEST(Timing, MakesOneCallWhenThereIsNoTime) {
  Playback calls{{3.0}};
  const Timing timing =
      time_one(std::ref(calls), {.warmup_calls = 5, .samples = 5, .max_seconds = 0.0});
  EXPECT_EQ(calls.next, 1U);
  EXPECT_DOUBLE_EQ(timing.median_s, 3.0);
  EXPECT_EQ(timing.samples, 1);
}

TEST(Timing, RefusesTimesThatAreNone) {
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_PUZZLE_ERROR((void)time_one([bad] { return bad; }, {}), ErrorKind::kNumeric, "seconds");
  }
}

TEST(Timing, PassesOnWhatTheCallThrows) {
  EXPECT_PUZZLE_ERROR((void)time_one([]() -> double { fail(ErrorKind::kIo, "server gone"); }, {}),
                      ErrorKind::kIo, "server gone");
}

}  // namespace
}  // namespace puzzle
