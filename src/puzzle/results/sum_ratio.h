// A ratio of two sums over independent units, with its standard error.
#pragma once

#include <cstdint>
#include <span>

namespace puzzle {

struct SumRatio {
  double value = 0.0;           // Σ numerators / Σ denominators; 0 where there are none
  double standard_error = 0.0;  // by the delta method; 0 for fewer than two units
  std::int64_t count = 0;       // Σ denominators, rounded down
};

// Both of one length, by unit; units of denominator 0 do not count.
[[nodiscard]] SumRatio ratio_of_sums(std::span<const double> numerators,
                                     std::span<const double> denominators);

}  // namespace puzzle
