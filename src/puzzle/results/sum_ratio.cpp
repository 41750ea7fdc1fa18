#include "puzzle/results/sum_ratio.h"

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

}  // namespace puzzle
