#include "puzzle/results/sum_ratio.h"

#include <algorithm>
#include <cmath>

#include "puzzle/base/error.h"

namespace puzzle {

SumRatio ratio_of_sums(std::span<const double> numerators, std::span<const double> denominators) {
  PUZZLE_CHECK(numerators.size() == denominators.size(), "{} units beside {}", numerators.size(),
               denominators.size());
  double n = 0.0;
  double d = 0.0;
  double units = 0.0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    n += numerators[i];
    d += denominators[i];
    units += denominators[i] > 0.0 ? 1.0 : 0.0;
  }
  const double ratio = d > 0.0 ? n / d : 0.0;
  double square = 0.0;
  for (std::size_t i = 0; i < numerators.size(); ++i) {
    const double residual = numerators[i] - ratio * denominators[i];
    square += residual * residual;
  }
  const double error = units > 1.0 && d > 0.0 ? std::sqrt(square * units / (units - 1.0)) / d : 0.0;
  return {ratio, error, static_cast<std::int64_t>(d)};
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
