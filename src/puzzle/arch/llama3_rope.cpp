// llama3 rotary scaling: settings -> divisors (docs/formats.md), and back where possible.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "puzzle/arch/gguf_config.h"

namespace puzzle {
namespace {

bool divisors_agree(const std::vector<float>& left, const std::vector<float>& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](float a, float b) { return std::abs(a - b) <= 1e-5F * std::abs(b); });
}

}  // namespace

std::vector<float> llama3_frequency_divisors(const RopeSpec& rope, std::int64_t head_dim) {
  if (!rope.frequency_divisors.empty()) {
    return rope.frequency_divisors;
  }
  const auto original = static_cast<double>(rope.original_context);
  std::vector<float> divisors;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    const double wavelength = 2.0 * std::numbers::pi * std::pow(rope.theta, exponent);
    if (wavelength < original / rope.high_frequency_factor) {
      divisors.push_back(1.0F);
    } else if (wavelength > original / rope.low_frequency_factor) {
      divisors.push_back(static_cast<float>(rope.factor));
    } else {
      const double smooth = (original / wavelength - rope.low_frequency_factor) /
                            (rope.high_frequency_factor - rope.low_frequency_factor);
      divisors.push_back(static_cast<float>(1.0 / ((1.0 - smooth) / rope.factor + smooth)));
    }
  }
  return divisors;
}

void find_llama3_settings(RopeSpec& rope, std::int64_t head_dim) {
  RopeSpec settings = rope;
  settings.frequency_divisors.clear();
  settings.low_frequency_factor = 1.0;
  settings.high_frequency_factor = 4.0;
  rope.original_context = 0;
  if (rope.frequency_divisors.empty()) {
    return;
  }
  settings.factor =
      *std::max_element(rope.frequency_divisors.begin(), rope.frequency_divisors.end());
  // 8192 first: all published llama3 models have it.
  for (const std::int64_t context : {8192, 1024, 2048, 4096, 16384, 32768, 65536, 131072}) {
    settings.original_context = context;
    if (settings.factor >= 1.0 &&
        divisors_agree(llama3_frequency_divisors(settings, head_dim), rope.frequency_divisors)) {
      settings.frequency_divisors = rope.frequency_divisors;
      rope = settings;
      return;
    }
  }
}

}  // namespace puzzle
