// config.json <-> ModelSpec: Llama-type parents and our own children (formats.md 2, 10).
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Reads LlamaForCausalLM and the `nemotron-nas` children that this project writes (with
// `intermediate_size` or `ffn_mult`). Anything else is refused by name (formats.md 10): other families,
// quantization_config, partial_rotary_factor, sliding windows, activations other than silu, …
// `place` opens messages. Throws Error(kFormat).
[[nodiscard]] ModelSpec parse_hf_config(const nlohmann::json& config, const std::string& place);
[[nodiscard]] ModelSpec load_hf_config(const std::filesystem::path& folder);

// The `nemotron-nas` config.json of a child (formats.md 2.1): every reader's fields and no others, plus
// per-layer `intermediate_size` where `ffn_mult` cannot express the width, and a `puzzle` object with
// provenance. `torch_dtype` is "float32", "bfloat16" or "float16".
[[nodiscard]] nlohmann::json make_nemotron_nas_config(const ModelSpec& spec,
                                                      const std::string& torch_dtype);

// I -> ffn_mult that every reader maps back to I (formats.md 2.5); I must be a multiple of 256.
[[nodiscard]] double ffn_mult_of(std::int64_t width, std::int64_t hidden_size);
[[nodiscard]] std::int64_t width_of_ffn_mult(double ffn_mult, std::int64_t hidden_size);

}  // namespace puzzle
