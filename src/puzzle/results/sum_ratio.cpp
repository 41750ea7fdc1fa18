#include "puzzle/results/sum_ratio.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "puzzle/base/error.h"

namespace puzzle {

double student_t_95(std::int64_t degrees_of_freedom) {
  PUZZLE_CHECK(degrees_of_freedom >= 1, "{} degrees of freedom", degrees_of_freedom);
  static constexpr std::array<double, 30> kTable = {
      12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
      2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
      2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  const auto index = static_cast<std::size_t>(degrees_of_freedom - 1);
  if (index < kTable.size()) {
    return kTable[index];
  }
  // Fisher's expansion around the normal quantile z: (z³ + z) / 4 and (5z⁵ + 16z³ + 3z) / 96.
  const double each = 1.0 / static_cast<double>(degrees_of_freedom);
  return 1.95996 + 2.37227 * each + 2.82250 * each * each;
}

std::optional<std::array<double, 2>> SumRatio::interval_95() const {
  if (units < 2) {
    return std::nullopt;
  }
  const double half = student_t_95(units - 1) * standard_error;
  return std::array{value - half, value + half};
}

SumRatio ratio_of_sums(std::span<const double> numerators, std::span<const double> denominators) {
  PUZZLE_CHECK(numerators.size() == denominators.size(), "{} units beside {}", numerators.size(),
               denominators.size());
  double n = 0.0;
  double d = 0.0;
  std::int64_t units = 0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    n += numerators[i];
    d += denominators[i];
    units += denominators[i] > 0.0 ? 1 : 0;
  }
  const double ratio = d > 0.0 ? n / d : 0.0;
  double square = 0.0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    const double residual = numerators[i] - ratio * denominators[i];
    square += residual * residual;
  }
  const auto n_units = static_cast<double>(units);
  const double error =
      units > 1 && d > 0.0 ? std::sqrt(square * n_units / (n_units - 1.0)) / d : 0.0;
  return {ratio, error, static_cast<std::int64_t>(d), units};
}

double ratio_error(double x_mean, double y_mean, const PairedErrors& errors) {
  const double ratio = x_mean / y_mean;
  const double x2 = errors.x * errors.x;
  const double y2 = errors.y * errors.y;
  const double twice_covariance = x2 + y2 - errors.difference * errors.difference;
  const double variance = x2 + ratio * ratio * y2 - ratio * twice_covariance;
  return std::sqrt(std::max(0.0, variance)) / std::abs(y_mean);
}

}  // namespace puzzle
