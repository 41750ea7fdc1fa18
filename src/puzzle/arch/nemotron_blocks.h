// The block_configs list of `nemotron-nas` (docs/formats.md), and of Puzzletron's children of any
// family, which give num_key_value_heads and intermediate_size instead (3.1): a part of hf_config.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Needs spec.num_heads and spec.hidden_size; `num_layers` is what the file says elsewhere. Throws
// Error(kFormat) naming the block, also for parts that this project does not have (sliding windows,
// sinks, sparsity, parallel blocks).
[[nodiscard]] Architecture parse_block_configs(const nlohmann::json& config, const ModelSpec& spec,
                                               std::int64_t num_layers, const std::string& place);

[[nodiscard]] nlohmann::json make_block_configs(const ModelSpec& spec);
// Puzzletron's, with every key it has; linear sub-blocks have none that is read. `torch_dtype`
// gives weights_precision: bf16, fp16 or fp32.
[[nodiscard]] nlohmann::json make_puzzletron_blocks(const ModelSpec& spec,
                                                    const std::string& torch_dtype);

}  // namespace puzzle
