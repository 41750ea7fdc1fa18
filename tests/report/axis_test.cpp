#include "puzzle/report/axis.h"

#include <cmath>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

std::vector<std::string> labels_of(const Scale& scale) {
  std::vector<std::string> labels;
  for (const Tick& tick : make_ticks(scale)) {
    labels.push_back(tick.label);
  }
  return labels;
}

TEST(Axis, LinearEndsAreRound) {
  const Scale scale = make_scale({0.23, 1.74}, {}, {100, 200});
  EXPECT_DOUBLE_EQ(scale.low, 0.0);
  EXPECT_DOUBLE_EQ(scale.high, 2.0);
  EXPECT_DOUBLE_EQ(scale(0.0), 100);
  EXPECT_DOUBLE_EQ(scale(1.0), 150);
  EXPECT_DOUBLE_EQ(scale(5.0), 200) << "clamped";
  EXPECT_EQ(labels_of(scale), (std::vector<std::string>{"0", "0.5", "1.0", "1.5", "2.0"}));
}

TEST(Axis, LogEndsAndTicksAreRound) {
  const Scale scale = make_scale({0.003, 4.0}, {.label = "", .log = true}, {0, 300});
  EXPECT_NEAR(scale.low, 0.002, 1e-15);
  EXPECT_NEAR(scale.high, 5.0, 1e-12);
  EXPECT_EQ(labels_of(scale), (std::vector<std::string>{"0.01", "0.1", "1"}));
  EXPECT_NEAR(scale(std::sqrt(0.002 * 5.0)), 150, 1e-9) << "geometric middle";
  const Scale narrow = make_scale({0.12, 0.4}, {.label = "", .log = true}, {0, 1});
  EXPECT_EQ(labels_of(narrow), (std::vector<std::string>{"0.1", "0.2", "0.5"}));
}

TEST(Axis, LeavesOutWhatHasNoPlace) {
  const Scale scale =
      make_scale({-1.0, 0.0, 10.0, 100.0, INFINITY, NAN}, {.label = "", .log = true}, {0, 1});
  EXPECT_NEAR(scale.low, 10, 1e-9);
  EXPECT_NEAR(scale.high, 100, 1e-9);
  EXPECT_FALSE(scale.holds(0.0));
  EXPECT_FALSE(scale.holds(INFINITY));
  EXPECT_FALSE(scale.holds(NAN));
  EXPECT_TRUE(scale.holds(3.0));
}

TEST(Axis, HasAtLeastTwoTicksForAnyValues) {
  for (const bool log : {false, true}) {
    for (const std::vector<double>& values : std::vector<std::vector<double>>{{},
                                                                              {0.0},
                                                                              {5.0},
                                                                              {-3.0, -3.0},
                                                                              {1e-9, 2e-9},
                                                                              {1e12, 1.5e12},
                                                                              {1e-6, 1e6},
                                                                              {0.999999, 1.0},
                                                                              {1.0, 1.0 + 1e-15}}) {
      for (const bool from_zero : {false, true}) {
        const Scale scale = make_scale(values, {"", log, from_zero}, {0, 100});
        const std::size_t count = make_ticks(scale).size();
        EXPECT_GE(count, 2U) << log << from_zero << (values.empty() ? 0.0 : values[0]);
        EXPECT_LE(count, 12U) << log << from_zero << (values.empty() ? 0.0 : values[0]);
        EXPECT_LT(scale.low, scale.high);
      }
    }
  }
}

TEST(Axis, LargeValuesGetShortLabels) {
  const Scale scale = make_scale({0, 40960}, {}, {0, 1});
  EXPECT_EQ(labels_of(scale),
            (std::vector<std::string>{"0", "10 k", "20 k", "30 k", "40 k", "50 k"}));
}

}  // namespace
}  // namespace puzzle
