// Numbers for readers: as many digits as mean something.
#pragma once

#include <string>

namespace puzzle {

// `digits` significant ones, without an exponent between 1e-4 and 1e7: "0.0123", "140", "1.2e-05".
[[nodiscard]] std::string format_significant(double value, int digits = 3);

// "0.213 ± 0.003": the error gets one significant digit, two if the first is a 1 (0.012), and
// decides those of the value. An error of 0 means "not known" and is left out.
[[nodiscard]] std::string format_with_error(double value, double error);

// A fraction as "97.1 %"; with its error "97.1 ± 0.4 %".
[[nodiscard]] std::string format_percent(double fraction, double error = 0.0);

// A change against 1 as "+4.2 %", "−0.5 %"; with its error "+4.2 ± 0.3 %".
[[nodiscard]] std::string format_change(double ratio, double error = 0.0);

// A ratio as "1.42×"; with its error "1.42 ± 0.03×".
[[nodiscard]] std::string format_ratio(double ratio, double error = 0.0);

}  // namespace puzzle
