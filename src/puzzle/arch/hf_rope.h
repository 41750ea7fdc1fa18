// Rotary embedding in config.json (docs/formats.md): a part of hf_config.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

struct HfRope {
  RopeSpec rope;
  std::int64_t exact_tokens = 0;  // beyond so many it is another function; 0 = never
};

// From rope_parameters (transformers 5; flat, or nested with full_attention only), else
// rope_scaling and rope_theta. Type "dynamic" is the default kind up to the context it was trained
// for. Throws Error(kFormat); types beyond these are named.
[[nodiscard]] HfRope parse_hf_rope(const nlohmann::json& config, std::int64_t context_length,
                                   const std::string& place);

// The rope_scaling object; null for the default kind. Divisors that no llama3 settings give are
// written as rope_type "frequency-divisors", which parse_hf_rope reads and other readers refuse.
[[nodiscard]] nlohmann::json make_hf_rope_scaling(const RopeSpec& rope);

}  // namespace puzzle
