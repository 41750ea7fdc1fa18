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
