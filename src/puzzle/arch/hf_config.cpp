#include "puzzle/arch/hf_config.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_family.h"
#include "puzzle/arch/hf_layers.h"
#include "puzzle/arch/hf_rope.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

// Keys that change the function computed unless they are absent, null or false.
constexpr std::array kRefusedFlags = {
    "bias",
    "qkv_bias",
    "qk_norm",
    "use_qk_norm",
    "alibi",
    "rope_interleaved",
    "no_rope_layer_interval",
};
// Keys that change it unless they are absent, null or 1.
constexpr std::array kRefusedScales = {"partial_rotary_factor", "embedding_multiplier",
                                       "residual_multiplier",   "logits_scaling",
                                       "num_local_experts",     "num_experts"};

void refuse_quantized(const Json& config, const std::string& place) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    const Json* quantization = find_json_member(config, key);
    if (quantization == nullptr) {
      continue;
    }
    const std::string method =
        quantization->is_object()
            ? json_string(*quantization, "quant_method", place + ": " + key, "unnamed")
            : "unnamed";
    fail(ErrorKind::kFormat,
         "{}: {} with quant_method '{}' is not supported, expected plain F32, F16 or BF16 weights; "
         "use the unquantised model or a GGUF file of it",
         place, key, method);
  }
}

void refuse_unsupported(const Json& config, const std::string& place) {
  refuse_quantized(config, place);
  for (const char* key : {"hidden_act", "hidden_activation"}) {
    if (const std::string act = json_string(config, key, place, "silu"); act != "silu") {
      fail(ErrorKind::kFormat, "{}: {} '{}' is not supported, expected silu", place, key, act);
    }
  }
  for (const char* key : kRefusedFlags) {
    const Json* value = find_json_member(config, key);
    if (value != nullptr && *value != Json(false) && !value->empty()) {
      fail(ErrorKind::kFormat, "{}: {} = {} is not supported", place, key, value->dump());
    }
  }
  for (const char* key : kRefusedScales) {
    if (const double value = json_double(config, key, place, 1.0); value != 1.0) {
      fail(ErrorKind::kFormat, "{}: {} = {} is not supported, expected 1", place, key, value);
    }
  }
  if (const Json* rotated = find_json_member(config, "no_rope_layers"); rotated != nullptr) {
    if (!std::all_of(rotated->begin(), rotated->end(),
                     [](const Json& v) { return v == Json(1); })) {
      fail(ErrorKind::kFormat,
           "{}: no_rope_layers (layers without rotary embedding) is not supported", place);
    }
  }
}

std::vector<std::int64_t> parse_eos(const Json& config, const std::string& place) {
  const Json* value = find_json_member(config, "eos_token_id");
  if (value == nullptr) {
    return {};
  }
  if (!value->is_array()) {
    return {json_int(config, "eos_token_id", place)};
  }
  std::vector<std::int64_t> tokens;
  for (const Json& token : *value) {
    if (!token.is_number_integer()) {
      fail(ErrorKind::kFormat, "{}: eos_token_id holds {}, expected whole numbers", place,
           token.dump());
    }
    tokens.push_back(token.get<std::int64_t>());
  }
  return tokens;
}

std::int64_t parse_head_dim(const Json& config, const HfFamily& family, const ModelSpec& spec,
                            const std::string& place) {
  if (find_json_member(config, "head_dim") != nullptr) {
    return json_int(config, "head_dim", place);
  }
  if (family.head_dim != 0) {
    return family.head_dim;
  }
  if (spec.hidden_size % spec.num_heads != 0) {
    fail(ErrorKind::kFormat,
         "{}: hidden_size {} is no multiple of num_attention_heads {}, and head_dim is not given",
         place, spec.hidden_size, spec.num_heads);
  }
  return spec.hidden_size / spec.num_heads;
}

void parse_context(const Json& config, const HfFamily& family, const std::string& place,
                   ModelSpec& spec) {
  spec.context_length = json_int(config, "max_position_embeddings", place, family.context_length);
  const HfRope rope = parse_hf_rope(config, spec.context_length, place);
  spec.rope = rope.rope;
  if (rope.exact_tokens > 0) {
    limit_context(spec, rope.exact_tokens,
                  "beyond it dynamic rotary scaling changes the angles, which this program lacks");
  }
  const auto window = parse_sliding_window(config, family, spec.num_layers(), place);
  if (window && *window < spec.context_length) {
    limit_context(spec, *window, kSlidingWindowLimit);
  }
}

// What hf_config_writer.cpp wrote for this program alone.
void parse_own_object(const Json& config, const std::string& place, ModelSpec& spec) {
  const Json* own = find_json_member(config, "puzzle");
  if (own == nullptr || !own->is_object()) {
    return;
  }
  const std::string own_place = place + ": puzzle";
  spec.name = json_string(*own, "name", own_place, spec.name);
  spec.attention_bias = json_bool(*own, "attention_bias", own_place, spec.attention_bias);
  spec.attention_output_bias =
      json_bool(*own, "attention_output_bias", own_place, spec.attention_output_bias);
  spec.qk_norm = json_bool(*own, "qk_norm", own_place, spec.qk_norm);
  spec.context_limit = json_string(*own, "context_limit", own_place, spec.context_limit);
  if (const Json* divisors = find_json_member(*own, "rope_frequency_divisors");
      divisors != nullptr) {
    if (!divisors->is_array() || !std::all_of(divisors->begin(), divisors->end(),
                                              [](const Json& v) { return v.is_number(); })) {
      fail(ErrorKind::kFormat, "{}: rope_frequency_divisors is no list of numbers", own_place);
    }
    spec.rope.frequency_divisors = divisors->get<std::vector<float>>();
  }
}

}  // namespace

std::string hf_config_dtype(const Json& config, const std::string& place) {
  const char* key = find_json_member(config, "torch_dtype") != nullptr ? "torch_dtype" : "dtype";
  std::string dtype = json_string(config, key, place, "float32");
  if (dtype.starts_with("torch.")) {
    dtype = dtype.substr(6);
  }
  if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
    fail(ErrorKind::kFormat, "{}: {} '{}' is not supported, expected float32, bfloat16 or float16",
         place, key, dtype);
  }
  return dtype;
}

DType dtype_of_torch_name(std::string_view name) {
  if (name == "float32") {
    return DType::kF32;
  }
  if (name == "float16") {
    return DType::kF16;
  }
  if (name == "bfloat16") {
    return DType::kBF16;
  }
  fail(ErrorKind::kUsage, "type '{}', expected float32, bfloat16 or float16", name);
}

ModelSpec parse_hf_config(const Json& config, const std::string& place) {
  const HfFamily& family = find_hf_family(config, place);
  refuse_unsupported(config, place);
  static_cast<void>(hf_config_dtype(config, place));
  ModelSpec spec;
  spec.name = json_string(config, "_name_or_path", place, "");
  spec.hidden_size = parse_hf_count(config, "hidden_size", kMaxHiddenSize, place);
  spec.num_heads = parse_hf_count(config, "num_attention_heads", kMaxHiddenSize, place);
  spec.head_dim = parse_head_dim(config, family, spec, place);
  spec.vocab_size = parse_hf_count(config, "vocab_size", kMaxVocabSize, place);
  spec.rms_norm_eps = json_double(config, "rms_norm_eps", place, 1e-6);
  spec.tie_embeddings = json_bool(config, "tie_word_embeddings", place, false);
  spec.attention_output_bias =
      family.reads_attention_bias && json_bool(config, "attention_bias", place, false);
  spec.attention_bias = spec.attention_output_bias || family.has_qkv_bias;
  spec.mlp_bias = family.reads_mlp_bias && json_bool(config, "mlp_bias", place, false);
  spec.qk_norm = family.has_qk_norm;
  spec.bos_token = json_int(config, "bos_token_id", place, -1);
  spec.eos_tokens = parse_eos(config, place);
  spec.layers = parse_hf_layers(config, family, spec, place);
  parse_context(config, family, place, spec);
  parse_own_object(config, place, spec);
  check_model_spec(spec, place);
  return spec;
}

ModelSpec load_hf_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  ModelSpec spec = parse_hf_config(load_json(path), path.string());
  if (spec.name.empty()) {
    const std::filesystem::path clean = std::filesystem::absolute(folder).lexically_normal();
    spec.name = (clean.has_filename() ? clean : clean.parent_path()).filename().string();
  }
  return spec;
}

std::string hf_model_type(const std::filesystem::path& model) {
  const std::filesystem::path path = model / "config.json";
  if (!std::filesystem::is_regular_file(path)) {
    return "";
  }
  return json_string(load_json(path), "model_type", path.string(), "");
}

}  // namespace puzzle
