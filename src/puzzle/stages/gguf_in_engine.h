// A GGUF in llama.cpp, for whole distributions: logits are hidden states · headᵀ, since
// llama-server gives no more than a few log-probabilities by itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include <ATen/core/Tensor.h>

#include "puzzle/engine/llama_server.h"

namespace puzzle {

// output.weight, or the token embedding where that is the head: [V, D], float.
[[nodiscard]] at::Tensor gguf_head(const std::filesystem::path& file);

// After the final norm, [T, D], from a server in mode kHiddenStates. Throws as hidden_states().
[[nodiscard]] at::Tensor engine_hidden_states(const LlamaServer& server,
                                              std::span<const std::int32_t> tokens);

}  // namespace puzzle
