// Rotary frequencies of every supported scaling (docs/formats.md).
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

struct RopeFrequencies {
  std::vector<double> inverse_frequencies;  // [E/2], radians per position
  double attention_factor = 1.0;            // multiplies cos and sin
};

[[nodiscard]] RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t head_dim);

}  // namespace puzzle
