#include "puzzle/results/sum_ratio.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

double mean_of(const std::vector<double>& samples) {
  double sum = 0.0;
  for (const double sample : samples) {
    sum += sample;
  }
  return sum / static_cast<double>(samples.size());
}

// Of the mean, from Σ(x − x̄)².
double naive_error(const std::vector<double>& samples) {
  const double mean = mean_of(samples);
  double squares = 0.0;
  for (const double sample : samples) {
    squares += (sample - mean) * (sample - mean);
  }
  const auto n = static_cast<double>(samples.size());
  return std::sqrt(squares / (n - 1.0) / n);
}

std::vector<double> combined(const std::vector<double>& x, double factor,
                             const std::vector<double>& y) {
  std::vector<double> result;
  for (std::size_t i = 0; i < x.size(); ++i) {
    result.push_back(x[i] + factor * y[i]);
  }
  return result;
}

// Twice the integral of the density from 0 to t, by Simpson's rule.
double probability_within(double t, double degrees) {
  constexpr int kSteps = 20000;
  const double scale = std::exp(std::lgamma((degrees + 1) / 2) - std::lgamma(degrees / 2)) /
                       std::sqrt(degrees * std::acos(-1.0));
  const auto density = [&](double x) {
    return scale * std::pow(1.0 + x * x / degrees, -(degrees + 1) / 2);
  };
  const double step = t / kSteps;
  double sum = density(0.0) + density(t);
  for (int i = 1; i < kSteps; ++i) {
    sum += (i % 2 == 1 ? 4.0 : 2.0) * density(i * step);
  }
  return 2.0 * sum * step / 3.0;
}

TEST(SumRatio, StudentsTHoldsNinetyFivePercent) {
  for (const std::int64_t degrees : {1, 2, 3, 4, 5, 7, 10, 12, 17, 20, 29, 30, 31, 40, 100, 1000}) {
    EXPECT_NEAR(probability_within(student_t_95(degrees), static_cast<double>(degrees)), 0.95, 1e-4)
        << degrees;
  }
}

TEST(SumRatio, FewUnitsHaveWideIntervals) {
  const std::vector<double> values = {4.0, 9.0, 0.0, 7.0};
  const SumRatio ratio = ratio_of_sums(values, std::vector{10.0, 20.0, 0.0, 10.0});
  EXPECT_EQ(ratio.units, 3);
  ASSERT_TRUE(ratio.interval_95());
  EXPECT_DOUBLE_EQ((*ratio.interval_95())[0], ratio.value - 4.303 * ratio.standard_error);
  EXPECT_DOUBLE_EQ((*ratio.interval_95())[1], ratio.value + 4.303 * ratio.standard_error);
  EXPECT_FALSE(ratio_of_sums(std::vector{4.0}, std::vector{10.0}).interval_95());
}

TEST(SumRatio, TheErrorOfARatioOfMeansIsThatOfItsResiduals) {
  const std::vector<double> y = {1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0};
  for (const std::vector<double>& x : {std::vector{1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0},
                                       std::vector{0.5, 1.0, 0.0, 2.0, 0.0, 1.0, 1.0},
                                       std::vector{0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}, y}) {
    const double ratio = mean_of(x) / mean_of(y);
    const double want = naive_error(combined(x, -ratio, y)) / mean_of(y);
    const PairedErrors errors{naive_error(x), naive_error(y), naive_error(combined(x, -1.0, y))};
    EXPECT_NEAR(ratio_error(mean_of(x), mean_of(y), errors), want, 1e-9);
  }
  EXPECT_GT(ratio_error(0.5, -1.0, {0.1, 0.1, 0.1}), 0.0);
}

}  // namespace
}  // namespace puzzle
