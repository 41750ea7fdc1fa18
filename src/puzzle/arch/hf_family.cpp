#include "puzzle/arch/hf_family.h"

#include <algorithm>
#include <array>
#include <vector>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::array<HfFamily, 6> kFamilies = {{
    {.architecture = "LlamaForCausalLM",
     .model_type = "llama",
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.architecture = "MistralForCausalLM",
     .model_type = "mistral",
     .context_length = 131072,
     .sliding_window = 4096},
    {.architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .has_qkv_bias = true,
     .context_length = 32768,
     .sliding_window = 4096,
     .window_takes_a_flag = true},
    {.architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .reads_attention_bias = true,
     .has_qk_norm = true,
     .head_dim = 128,
     .context_length = 32768,
     .sliding_window = 4096,
     .window_takes_a_flag = true},
    {.architecture = "DeciLMForCausalLM",
     .model_type = "nemotron-nas",
     .needs_block_configs = true,
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    // DeciLM-7B, the predecessor of nemotron-nas.
    {.architecture = "DeciLMForCausalLM",
     .model_type = "deci",
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
}};
constexpr std::int64_t kFirstWindowLayer = 28;  // max_window_layers where the key is absent

std::string architecture_name(const Json& config, const std::string& place) {
  const Json* names = find_json_member(config, "architectures");
  if (names == nullptr) {
    return "";
  }
  if (!names->is_array() || names->empty() || !names->front().is_string()) {
    fail(ErrorKind::kFormat, "{}: \"architectures\" is no list of names", place);
  }
  const auto name = names->front().get<std::string>();
  return name == "AnyModel" ? json_string(config, "base_architecture", place) : name;
}

bool is_plain_class_of(const HfFamily& family, const ModelSpec& spec) {
  if (family.needs_block_configs || family.model_type == "deci") {
    return false;
  }
  const bool has_own_biases = family.has_qkv_bias
                                  ? spec.attention_bias && !spec.attention_output_bias
                                  : spec.attention_bias == spec.attention_output_bias &&
                                        (!spec.attention_bias || family.reads_attention_bias);
  return has_own_biases && family.has_qk_norm == spec.qk_norm &&
         (!spec.mlp_bias || family.reads_mlp_bias);
}

bool has_sliding_layer(const Json& types, const std::string& place) {
  if (!types.is_array()) {
    fail(ErrorKind::kFormat, "{}: layer_types is {}, expected a list", place, types.type_name());
  }
  for (const Json& type : types) {
    if (type != Json("full_attention") && type != Json("sliding_attention")) {
      fail(ErrorKind::kFormat,
           "{}: layer_types holds {}, expected full_attention or sliding_attention", place,
           type.dump());
    }
  }
  return std::find(types.begin(), types.end(), Json("sliding_attention")) != types.end();
}

}  // namespace

const HfFamily& find_hf_family(const Json& config, const std::string& place) {
  if (!config.is_object()) {
    fail(ErrorKind::kFormat, "{}: it holds {}, expected an object", place, config.type_name());
  }
  const std::string type = json_string(config, "model_type", place, "");
  const std::string name = architecture_name(config, place);
  if (name.empty() && type.empty()) {
    fail(ErrorKind::kFormat, "{}: neither \"architectures\" nor \"model_type\" is given", place);
  }
  std::vector<std::string> known;
  for (const HfFamily& family : kFamilies) {
    // Of two classes of one name the first is the newer; the files of the other give its type.
    if ((name.empty() || name == family.architecture) &&
        (type.empty() || type == family.model_type)) {
      return family;
    }
    known.emplace_back(std::string(family.architecture) + " (" + std::string(family.model_type) +
                       ")");
  }
  fail(ErrorKind::kFormat, "{}: architecture {} (model_type {}) is not supported; expected {}",
       place, name.empty() ? "unknown" : name, type.empty() ? "absent" : type, join(known, ", "));
}

const HfFamily* find_plain_family(const ModelSpec& spec, std::string_view preferred) {
  const HfFamily* found = nullptr;
  for (const HfFamily& family : kFamilies) {
    if (is_plain_class_of(family, spec) && (found == nullptr || family.model_type == preferred)) {
      found = &family;
    }
  }
  return found;
}

std::optional<std::int64_t> parse_sliding_window(const Json& config, const HfFamily& family,
                                                 std::int64_t num_layers,
                                                 const std::string& place) {
  std::int64_t window = config.contains("sliding_window")
                            ? json_int(config, "sliding_window", place, 0)
                            : family.sliding_window;
  const bool is_null = window == 0 && find_json_member(config, "sliding_window") == nullptr;
  if (!is_null && window < 1) {
    fail(ErrorKind::kFormat, "{}: sliding_window is {}, expected null or at least 1", place,
         window);
  }
  if (!json_bool(config, "use_sliding_window", place, !family.window_takes_a_flag)) {
    window = 0;
  }
  const Json* types = find_json_member(config, "layer_types");
  const bool named = types != nullptr && has_sliding_layer(*types, place);
  if (named && window == 0) {
    fail(ErrorKind::kFormat,
         "{}: layer_types holds sliding_attention, but no sliding_window is in use", place);
  }
  bool in_use = true;
  if (family.window_takes_a_flag) {
    in_use = types != nullptr
                 ? named
                 : json_int(config, "max_window_layers", place, kFirstWindowLayer) < num_layers;
  }
  return window > 0 && in_use ? std::optional(window) : std::nullopt;
}

}  // namespace puzzle
