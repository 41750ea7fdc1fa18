// Numeric types of a model as it is deployed, from the names that options use.
#pragma once

#include <filesystem>
#include <string>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/scenario.h"

namespace puzzle {

// Weights: a name of gguf_weight_types(), or "fp8" for engines other than llama.cpp: F8 matrices,
// embedding and head in BF16, as TensorRT-LLM and vLLM leave them. KV cache: the scenario's. Throws
// Error(kUsage).
[[nodiscard]] WeightTypes deployed_types(const std::string& name, const Scenario& scenario,
                                         const std::filesystem::path& parent);

// Whether every matrix of a GGUF file has the type that `types` gives it (embedding, head, and
// those of the layers). Throws Error(kIo), Error(kFormat).
[[nodiscard]] bool is_stored_as(const std::filesystem::path& gguf, const WeightTypes& types);

}  // namespace puzzle
