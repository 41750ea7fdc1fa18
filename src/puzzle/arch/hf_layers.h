// The layers of a config.json of any family, alike or not: a part of hf_config.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/hf_family.h"
#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Needs spec.num_heads and spec.hidden_size. All layers are alike unless the file says otherwise:
//   block_configs                      nemotron-nas and Puzzletron (nemotron_blocks.h)
//   per_layer_config                   of transformers: {"3": {"num_key_value_heads": 2,
//                                      "intermediate_size": 512, "skip": ["attention", "mlp"]}}
//   num_key_value_heads_per_layer      DeciLM-7B
// Throws Error(kFormat).
[[nodiscard]] Architecture parse_hf_layers(const nlohmann::json& config, const HfFamily& family,
                                           const ModelSpec& spec, const std::string& place);

// A whole number of 1 … most.
[[nodiscard]] std::int64_t parse_hf_count(const nlohmann::json& object, const char* key,
                                          std::int64_t most, const std::string& place);

}  // namespace puzzle
