#include "puzzle/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "puzzle/arch/gguf_config.h"
#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Dimension index at which `rotations` full turns fit into the original context.
double yarn_dimension(const RopeSpec& rope, std::int64_t head_dim, double rotations) {
  return static_cast<double>(head_dim) *
         std::log(static_cast<double>(rope.original_context) /
                  (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

void apply_yarn(const RopeSpec& rope, std::int64_t head_dim, RopeFrequencies& frequencies) {
  double low = yarn_dimension(rope, head_dim, rope.beta_fast);
  double high = yarn_dimension(rope, head_dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) {
    high += 0.001;
  }
  for (std::size_t i = 0; i < frequencies.inverse_frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    double& frequency = frequencies.inverse_frequencies[i];
    frequency = frequency / rope.factor * ramp + frequency * (1.0 - ramp);
  }
  frequencies.attention_factor =
      rope.attention_factor > 0.0 ? rope.attention_factor : 0.1 * std::log(rope.factor) + 1.0;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t head_dim) {
  RopeFrequencies frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    frequencies.inverse_frequencies.push_back(
        std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
  }
  switch (rope.kind) {
    case RopeKind::kDefault:
      break;
    case RopeKind::kLinear:
      for (double& frequency : frequencies.inverse_frequencies) {
        frequency /= rope.factor;
      }
      break;
    case RopeKind::kLlama3: {
      const std::vector<float> divisors = llama3_frequency_divisors(rope, head_dim);
      PUZZLE_CHECK(divisors.size() == frequencies.inverse_frequencies.size(), "{} divisors",
                   divisors.size());
      for (std::size_t i = 0; i < divisors.size(); ++i) {
        frequencies.inverse_frequencies[i] /= static_cast<double>(divisors[i]);
      }
      break;
    }
    case RopeKind::kYarn:
      apply_yarn(rope, head_dim, frequencies);
      break;
  }
  return frequencies;
}

}  // namespace puzzle
