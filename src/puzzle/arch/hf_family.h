// Which class of model a config.json names, and what that class fixes without any key: a part of
// hf_config (docs/formats.md; transformers' configuration_*.py).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

struct HfFamily {
  std::string_view architecture;  // "Qwen3ForCausalLM"
  std::string_view model_type;    // "qwen3"
  bool needs_block_configs = false;
  bool has_qkv_bias = false;           // always, and never one on o
  bool reads_attention_bias = false;   // the key attention_bias: q, k, v and o
  bool reads_mlp_bias = false;         // the key mlp_bias
  bool has_qk_norm = false;            // RMSNorm over each head of q and k
  std::int64_t head_dim = 0;           // where the key is absent; 0 = hidden size over heads
  std::int64_t context_length = 2048;  // where max_position_embeddings is absent
  std::int64_t sliding_window = 0;     // where the key is absent; 0 = none
  bool window_takes_a_flag = false;    // a window counts only with use_sliding_window, and only in
                                       // layers from max_window_layers on or so named
};

// By "architectures" and "model_type", of which one may be absent; vLLM's AnyModel is its
// base_architecture. Throws Error(kFormat) listing what is supported.
[[nodiscard]] const HfFamily& find_hf_family(const nlohmann::json& config,
                                             const std::string& place);

// The class of transformers' own that has just this model's biases and norms of q and k, layers
// apart: the one of `preferred` model_type where it does, else the first. Null if none has.
[[nodiscard]] const HfFamily* find_plain_family(const ModelSpec& spec, std::string_view preferred);

// Number of tokens that a layer with the shortest view sees, itself included; nothing if all layers
// see everything. Throws Error(kFormat) for layer types that this project does not have.
[[nodiscard]] std::optional<std::int64_t> parse_sliding_window(const nlohmann::json& config,
                                                               const HfFamily& family,
                                                               std::int64_t num_layers,
                                                               const std::string& place);

}  // namespace puzzle
