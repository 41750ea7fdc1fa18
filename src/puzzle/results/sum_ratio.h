// A ratio of two sums over independent units, with its standard error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace puzzle {

struct SumRatio {
  double value = 0.0;           // Σ numerators / Σ denominators; 0 where there are none
  double standard_error = 0.0;  // by the delta method; 0 for fewer than two units
  std::int64_t count = 0;       // Σ denominators, rounded down
  std::int64_t units = 0;       // those that count

  // The 95 % interval: the standard error times Student's t for units − 1 degrees of freedom on
  // both sides, since with few units their spread is hardly known; nothing for fewer than two.
  [[nodiscard]] std::optional<std::array<double, 2>> interval_95() const;
};

// Two-sided 95 % quantile of Student's t: |t| is below it in 95 % of all cases.
[[nodiscard]] double student_t_95(std::int64_t degrees_of_freedom);

// Both of one length, by unit; units of denominator 0 do not count.
[[nodiscard]] SumRatio ratio_of_sums(std::span<const double> numerators,
                                     std::span<const double> denominators);

// Standard errors of the means of two things measured on the same samples, and of their difference.
struct PairedErrors {
  double x = 0.0;
  double y = 0.0;
  double difference = 0.0;  // of the mean of x − y
};
// Standard error of the ratio of the means, x̄/ȳ, by the delta method: that of x − (x̄/ȳ)·y, over ȳ.
[[nodiscard]] double ratio_error(double x_mean, double y_mean, const PairedErrors& errors);

}  // namespace puzzle
