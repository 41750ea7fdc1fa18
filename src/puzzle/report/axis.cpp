#include "puzzle/report/axis.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr int kWantedTicks = 5;
constexpr std::array kMantissas = {1.0, 2.0, 5.0, 10.0};

// The smallest of 1, 2, 5 × 10^n that is at least `value` > 0.
double round_up_nicely(double value) {
  const double power = std::pow(10.0, std::floor(std::log10(value)));
  for (const double mantissa : kMantissas) {
    if (mantissa * power >= value * (1 - 1e-9)) {
      return mantissa * power;
    }
  }
  return 10.0 * power;
}

double round_down_nicely(double value) {
  const double power = std::pow(10.0, std::floor(std::log10(value) + 1e-9));
  double best = power;
  for (const double mantissa : kMantissas) {
    if (mantissa * power <= value * (1 + 1e-9)) {
      best = mantissa * power;
    }
  }
  return best;
}

double linear_step(double low, double high) { return round_up_nicely((high - low) / kWantedTicks); }

// "20 k", "0.05", "1e-06"; `step` says how many decimals tell neighbours apart.
std::string tick_label(double value, double step) {
  if (std::abs(value) < step * 1e-6) {
    return "0";
  }
  if (std::abs(value) >= 10'000) {
    return human_count(value);
  }
  if (std::abs(value) < 1e-4) {
    return fmt::format("{:.0e}", value);
  }
  const int decimals = std::clamp(-static_cast<int>(std::floor(std::log10(step) + 1e-9)), 0, 8);
  return fmt::format("{:.{}f}", value, decimals);
}

std::vector<Tick> linear_ticks(const Scale& scale) {
  const double step = linear_step(scale.low, scale.high);
  std::vector<Tick> ticks;
  const auto first = static_cast<int>(std::ceil(scale.low / step - 1e-6));
  const auto last = static_cast<int>(std::floor(scale.high / step + 1e-6));
  for (int i = first; i <= last; ++i) {
    ticks.push_back({i * step, tick_label(i * step, step)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(const Scale& scale) {
  const double decades = std::log10(scale.high / scale.low);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / 8)));
  std::vector<Tick> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(scale.low)));
       power <= static_cast<int>(std::ceil(std::log10(scale.high))); ++power) {
    for (const double mantissa : {1.0, 2.0, 5.0}) {
      const bool wanted = decades <= 3.0 || (mantissa == 1.0 && power % every == 0);
      const double value = mantissa * std::pow(10.0, power);
      if (wanted && value >= scale.low * (1 - 1e-9) && value <= scale.high * (1 + 1e-9)) {
        ticks.push_back({value, tick_label(value, value)});
      }
    }
  }
  return ticks;
}

}  // namespace

bool Scale::holds(double value) const { return std::isfinite(value) && (!log || value > 0.0); }

double Scale::operator()(double value) const {
  const double clamped = std::clamp(value, low, high);
  const double part =
      log ? std::log(clamped / low) / std::log(high / low) : (clamped - low) / (high - low);
  return from_px + part * (to_px - from_px);
}

Scale make_scale(const std::vector<double>& values, const AxisSpec& axis, PixelRange pixels) {
  Scale scale{axis.log, axis.log ? 1.0 : 0.0, axis.log ? 10.0 : 1.0, pixels.from, pixels.to};
  std::vector<double> held;
  std::copy_if(values.begin(), values.end(), std::back_inserter(held),
               [&scale](double value) { return scale.holds(value); });
  if (held.empty()) {
    return scale;
  }
  scale.low = *std::min_element(held.begin(), held.end());
  scale.high = *std::max_element(held.begin(), held.end());
  if (axis.log) {
    scale.low = round_down_nicely(scale.low);
    scale.high = round_up_nicely(std::max(scale.high, scale.low * 2));
    return scale;
  }
  if (axis.from_zero) {
    scale.low = std::min(scale.low, 0.0);
    scale.high = std::max(scale.high, 0.0);
  }
  if (scale.high - scale.low <= 1e-12 * std::max(std::abs(scale.high), std::abs(scale.low))) {
    const double margin = scale.high == 0.0 ? 1.0 : 0.1 * std::abs(scale.high);
    scale.low -= axis.from_zero ? 0.0 : margin;
    scale.high += margin;
  }
  if (axis.tight) {
    const double margin = 0.03 * (scale.high - scale.low);
    scale.low -= scale.low == 0.0 ? 0.0 : margin;
    scale.high += scale.high == 0.0 ? 0.0 : margin;
    return scale;
  }
  const double step = linear_step(scale.low, scale.high);
  scale.low = std::floor(scale.low / step + 1e-9) * step;
  scale.high = std::ceil(scale.high / step - 1e-9) * step;
  return scale;
}

std::vector<Tick> make_ticks(const Scale& scale) {
  return scale.log ? log_ticks(scale) : linear_ticks(scale);
}

}  // namespace puzzle
