#include "puzzle/report/number.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace puzzle {
namespace {

constexpr const char* kInfinity = "∞";

// A real minus sign instead of the hyphen.
std::string with_minus(std::string text) {
  if (!text.empty() && text.front() == '-') {
    text.replace(0, 1, "−");
  }
  return text;
}

// Decimals that show `digits` significant digits of `value`.
int decimals_for(double value, int digits) {
  if (value == 0.0) {
    return 0;
  }
  return std::clamp(digits - 1 - static_cast<int>(std::floor(std::log10(std::abs(value)))), 0, 12);
}

// One significant digit of an error, two where the first is a 1: 0.007, 0.012.
int error_decimals(double error) {
  const int decimals = decimals_for(error, 1);
  const double leading = error * std::pow(10.0, decimals);
  return leading < 1.95 && decimals_for(error, 2) > decimals ? decimals + 1 : decimals;
}

std::string value_and_error(double value, double error, const char* unit, int digits) {
  if (!std::isfinite(value)) {
    return kInfinity;
  }
  if (!(error > 0.0) || !std::isfinite(error)) {
    return with_minus(fmt::format("{:.{}f}{}", value, decimals_for(value, digits), unit));
  }
  const int decimals = error_decimals(error);
  return with_minus(fmt::format("{:.{}f} ± {:.{}f}{}", value, decimals, error, decimals, unit));
}

}  // namespace

std::string format_significant(double value, int digits) {
  if (std::isnan(value)) {
    return "–";
  }
  if (std::isinf(value)) {
    return value > 0 ? kInfinity : std::string("−") + kInfinity;
  }
  const double size = std::abs(value);
  if (size != 0.0 && (size < 1e-4 || size >= 1e7)) {
    return with_minus(fmt::format("{:.{}e}", value, digits - 1));
  }
  return with_minus(fmt::format("{:.{}f}", value, decimals_for(value, digits)));
}

std::string format_with_error(double value, double error) {
  if (!(error > 0.0) || !std::isfinite(error) || !std::isfinite(value)) {
    return format_significant(value, 4);
  }
  return value_and_error(value, error, "", 4);
}

std::string format_percent(double fraction, double error) {
  return value_and_error(100.0 * fraction, 100.0 * error, " %", 3);
}

std::string format_change(double ratio, double error) {
  const double percent = 100.0 * (ratio - 1.0);
  const std::string text = value_and_error(percent, 100.0 * error, " %", 2);
  return percent > 0.0 ? "+" + text : text;
}

std::string format_ratio(double ratio, double error) {
  return value_and_error(ratio, error, "×", 3);
}

}  // namespace puzzle
