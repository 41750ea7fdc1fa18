// config.json <-> ModelSpec: Llama-type parents and our own children (docs/formats.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

// Reads Llama, Mistral, Qwen2, Qwen3, DeciLM-7B and `nemotron-nas` (this project's children and
// NVIDIA's published ones), with layers that differ in any way of hf_layers.h. Keys that are absent
// take transformers' defaults. Sliding windows and dynamic rotary scaling are read as a model whose
// context ends where they would begin to matter (ModelSpec::context_limit). Anything else that
// would change the function computed and that this project does not have is refused by name
// (docs/formats.md): other families, quantization_config, partial_rotary_factor, activations other
// than silu, …
// `place` opens messages. Throws Error(kFormat).
[[nodiscard]] ModelSpec parse_hf_config(const nlohmann::json& config, const std::string& place);
// folder/config.json; a model without a name of its own gets the folder's. Throws Error(kIo), too.
[[nodiscard]] ModelSpec load_hf_config(const std::filesystem::path& folder);

// `torch_dtype`, or `dtype` in newer files: "float32" (also where both are absent), "bfloat16" or
// "float16"; others are Error(kFormat).
[[nodiscard]] std::string hf_config_dtype(const nlohmann::json& config, const std::string& place);
// The type of such a name. Throws Error(kUsage) for another.
[[nodiscard]] DType dtype_of_torch_name(std::string_view name);

// The `nemotron-nas` config.json of a child (docs/formats.md): every reader's fields and no others,
// plus per-layer `intermediate_size` where `ffn_mult` cannot express the width, and a `puzzle`
// object with what only this program reads (name, exact rotary divisors, which biases exist).
// parse_hf_config gives the same spec back. `torch_dtype` is "float32", "bfloat16" or "float16",
// anything else Error(kUsage).
[[nodiscard]] nlohmann::json make_nemotron_nas_config(const ModelSpec& spec,
                                                      const std::string& torch_dtype);

// The model_type that a folder's config.json names; empty where it has none, or for a file.
[[nodiscard]] std::string hf_model_type(const std::filesystem::path& model);

// A model of transformers' own class, all of whose layers are alike (padded_model.h): what Llama,
// Mistral, Qwen2 and Qwen3 read, in the class of `parent_type` where that has the same biases and
// norms. Throws Error(kUsage) where no class holds it (refusal()), or the layers differ.
[[nodiscard]] nlohmann::json make_plain_config(const ModelSpec& spec,
                                               const std::string& torch_dtype,
                                               std::string_view parent_type);
// The same class with Puzzletron's block_configs, and "AnyModel" over it (docs/formats.md), for
// the weights of nemotron-nas. One file serves both readers: vLLM's goes by `architectures` and
// `base_architecture`; Model-Optimizer's looks the class AnyModel up in transformers, where there
// is none, and goes by model_type. Throws Error(kUsage) as refusal().
[[nodiscard]] nlohmann::json make_any_model_config(const ModelSpec& spec,
                                                   const std::string& torch_dtype,
                                                   std::string_view parent_type);

// I -> ffn_mult that every reader maps back to I (docs/formats.md); I must be a multiple of 256,
// else Error(kUsage).
[[nodiscard]] double ffn_mult_of(std::int64_t width, std::int64_t hidden_size);
// The shared rounding rule: trunc(2 m D / 3), up to the next multiple of 256; 0 for a number that
// is not positive or gives more than kMaxFfnWidth.
[[nodiscard]] std::int64_t width_of_ffn_mult(double ffn_mult, std::int64_t hidden_size);

}  // namespace puzzle
