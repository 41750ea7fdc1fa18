// Writes config.json: children of our own (nemotron-nas) and of transformers' own classes.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/hf_family.h"
#include "puzzle/arch/hf_rope.h"
#include "puzzle/arch/lowering.h"
#include "puzzle/arch/nemotron_blocks.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

constexpr const char* kNasArchitecture = "DeciLMForCausalLM";
constexpr const char* kNasModelType = "nemotron-nas";

Json make_own_object(const ModelSpec& spec) {
  Json own = {{"version", 1}, {"name", spec.name}};
  if (spec.attention_bias != spec.attention_output_bias) {
    own["attention_bias"] = spec.attention_bias;
    own["attention_output_bias"] = spec.attention_output_bias;
  }
  if (spec.qk_norm) {
    own["qk_norm"] = true;
  }
  if (!spec.context_limit.empty()) {
    own["context_limit"] = spec.context_limit;
  }
  if (!spec.rope.frequency_divisors.empty()) {
    own["rope_frequency_divisors"] = spec.rope.frequency_divisors;
  }
  return own;
}

Json make_eos(const std::vector<std::int64_t>& tokens) {
  if (tokens.empty()) {
    return nullptr;
  }
  return tokens.size() == 1 ? Json(tokens.front()) : Json(tokens);
}

// What every class reads under the same keys.
Json common_members(const ModelSpec& spec, const std::string& torch_dtype) {
  if (torch_dtype != "float32" && torch_dtype != "bfloat16" && torch_dtype != "float16") {
    fail(ErrorKind::kUsage, "torch_dtype '{}': expected float32, bfloat16 or float16", torch_dtype);
  }
  return {
      {"num_hidden_layers", spec.num_layers()},
      {"hidden_size", spec.hidden_size},
      {"num_attention_heads", spec.num_heads},
      {"head_dim", spec.head_dim},
      {"hidden_act", "silu"},
      {"rms_norm_eps", spec.rms_norm_eps},
      {"max_position_embeddings", spec.context_length},
      {"rope_theta", spec.rope.theta},
      {"rope_scaling", make_hf_rope_scaling(spec.rope)},
      {"attention_dropout", 0.0},
      {"tie_word_embeddings", spec.tie_embeddings},
      {"vocab_size", spec.vocab_size},
      {"bos_token_id", spec.bos_token < 0 ? Json() : Json(spec.bos_token)},
      {"eos_token_id", make_eos(spec.eos_tokens)},
      {"initializer_range", 0.02},
      {"use_cache", true},
      {"torch_dtype", torch_dtype},
      {"puzzle", make_own_object(spec)},
  };
}

// The members of transformers' own class; KV heads and width are the largest of any layer.
Json plain_members(const ModelSpec& spec, const HfFamily& family, const std::string& torch_dtype) {
  Json config = common_members(spec, torch_dtype);
  std::int64_t kv_heads = 0;
  std::int64_t width = 0;
  for (const BlockSpec& block : spec.layers) {
    kv_heads = std::max(kv_heads, block.attention.kv_heads);
    width = std::max(width, block.ffn.width);
  }
  config["architectures"] = {family.architecture};
  config["model_type"] = family.model_type;
  config["num_key_value_heads"] = kv_heads > 0 ? kv_heads : spec.num_heads;
  config["intermediate_size"] = width > 0 ? width : spec.hidden_size;
  if (family.reads_attention_bias) {
    config["attention_bias"] = spec.attention_bias;
  }
  if (family.reads_mlp_bias) {
    config["mlp_bias"] = spec.mlp_bias;
  }
  if (family.sliding_window > 0) {  // of its class, and not of this model
    config["sliding_window"] = nullptr;
  }
  if (family.window_takes_a_flag) {
    config["use_sliding_window"] = false;
  }
  return config;
}

const HfFamily& require_family(ExportTarget target, const ModelSpec& spec,
                               std::string_view parent_type) {
  const std::string place = fmt::format("{} config", export_target_name(target));
  check_model_spec(spec, place);
  if (const auto reason = refusal(target, spec)) {
    fail(ErrorKind::kUsage, "{}: {}", place, *reason);
  }
  const HfFamily* family = find_plain_family(spec, parent_type);
  PUZZLE_CHECK(family != nullptr, "{}: a model without a class was let pass", place);
  return *family;
}

}  // namespace

Json make_nemotron_nas_config(const ModelSpec& spec, const std::string& torch_dtype) {
  check_model_spec(spec, "nemotron-nas config");
  Json config = common_members(spec, torch_dtype);
  config.update({{"architectures", {kNasArchitecture}},
                 {"model_type", kNasModelType},
                 {"auto_map",
                  {{"AutoConfig", "configuration_decilm.DeciLMConfig"},
                   {"AutoModelForCausalLM", "modeling_decilm.DeciLMForCausalLM"}}},
                 {"block_configs", make_block_configs(spec)},
                 {"num_key_value_heads", nullptr},
                 {"intermediate_size", nullptr},
                 {"attention_bias", spec.attention_bias || spec.attention_output_bias},
                 {"mlp_bias", spec.mlp_bias},
                 {"pretraining_tp", 1}});
  return config;
}

Json make_plain_config(const ModelSpec& spec, const std::string& torch_dtype,
                       std::string_view parent_type) {
  const HfFamily& family = require_family(ExportTarget::kPadded, spec, parent_type);
  const bool is_uniform =
      spec.layers.front().attention.kind == AttentionKind::kGqa &&
      spec.layers.front().ffn.kind == FfnKind::kSwiglu &&
      std::all_of(spec.layers.begin(), spec.layers.end(),
                  [&](const BlockSpec& block) { return block == spec.layers.front(); });
  if (!is_uniform) {
    fail(ErrorKind::kUsage, "plain config: the layers differ; pass a padded_spec()");
  }
  return plain_members(spec, family, torch_dtype);
}

Json make_any_model_config(const ModelSpec& spec, const std::string& torch_dtype,
                           std::string_view parent_type) {
  const HfFamily& family = require_family(ExportTarget::kAnyModel, spec, parent_type);
  Json config = plain_members(spec, family, torch_dtype);
  config["architectures"] = {"AnyModel"};
  config["base_architecture"] = family.architecture;
  config["block_configs"] = make_puzzletron_blocks(spec, torch_dtype);
  return config;
}

}  // namespace puzzle
