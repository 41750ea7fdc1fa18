#include "puzzle/arch/nemotron_blocks.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

constexpr std::int64_t kFfnMultStep = 256;

const Json& sub_block(const Json& block, const char* key, const std::string& place) {
  const Json* member = block.is_object() ? find_json_member(block, key) : nullptr;
  if (member == nullptr || !member->is_object()) {
    fail(ErrorKind::kFormat, "{}: \"{}\" is missing or no object", place, key);
  }
  return *member;
}

// null, false, 0 and empty lists or objects mean "not used".
void refuse_used(const Json& object, std::initializer_list<const char*> keys,
                 const std::string& place) {
  for (const char* key : keys) {
    const Json* value = find_json_member(object, key);
    const bool unused = value == nullptr || value->empty() || *value == Json(false) ||
                        (value->is_number() && *value == Json(0));
    if (!unused) {
      fail(ErrorKind::kFormat, "{}: {} is not supported", place, key);
    }
  }
}

// True for "linear", false for neither; no-op is answered by the caller.
struct Replacement {
  bool no_op;
  bool linear;
};

Replacement parse_replacement(const Json& object, const std::string& place) {
  const Replacement replacement{json_bool(object, "no_op", place, false),
                                json_bool(object, "replace_with_linear", place, false)};
  if (replacement.no_op && replacement.linear) {
    fail(ErrorKind::kFormat, "{}: both no_op and replace_with_linear are true, expected one",
         place);
  }
  return replacement;
}

std::int64_t parse_divisor(const Json& object, const char* key, const ModelSpec& spec,
                           const std::string& place) {
  const std::int64_t count = json_int(object, key, place);
  if (count <= 0 || spec.num_heads % count != 0) {
    fail(ErrorKind::kFormat, "{}: {} is {}, expected a divisor of num_attention_heads {}", place,
         key, count, spec.num_heads);
  }
  return count;
}

// The KV heads are given, or the heads that share one.
std::int64_t parse_kv_heads(const Json& object, const ModelSpec& spec, const std::string& place) {
  const char* key = "num_key_value_heads";
  const bool is_given = find_json_member(object, key) != nullptr;
  const std::int64_t given = is_given ? parse_divisor(object, key, spec, place) : 0;
  if (is_given && find_json_member(object, "n_heads_in_group") == nullptr) {
    return given;
  }
  const std::int64_t group = parse_divisor(object, "n_heads_in_group", spec, place);
  if (is_given && given != spec.num_heads / group) {
    fail(ErrorKind::kFormat, "{}: n_heads_in_group {} means {} KV heads, but {} is {}", place,
         group, spec.num_heads / group, key, given);
  }
  return spec.num_heads / group;
}

AttentionSpec parse_attention_config(const Json& object, const ModelSpec& spec,
                                     const std::string& place) {
  refuse_used(object,
              {"sparsify", "window_length", "num_sink_tokens", "unshifted_sink",
               "use_prefill_window_in_sink_attention", "mamba", "llama4"},
              place);
  const Replacement replacement = parse_replacement(object, place);
  if (replacement.no_op) {
    return AttentionSpec::none();
  }
  if (replacement.linear) {
    return AttentionSpec::linear();
  }
  return AttentionSpec::gqa(parse_kv_heads(object, spec, place));
}

std::int64_t parse_width(const Json& object, const ModelSpec& spec, const std::string& place) {
  const bool has_mult = find_json_member(object, "ffn_mult") != nullptr;
  const std::int64_t stated = json_int(object, "intermediate_size", place, 0);
  if (!has_mult && find_json_member(object, "intermediate_size") == nullptr) {
    fail(ErrorKind::kFormat, "{}: neither ffn_mult nor intermediate_size is given", place);
  }
  if (!has_mult) {
    return stated;
  }
  const double mult = json_double(object, "ffn_mult", place);
  const std::int64_t width = width_of_ffn_mult(mult, spec.hidden_size);
  if (width == 0) {
    fail(ErrorKind::kFormat, "{}: ffn_mult is {}, expected a number that gives a width of 1 … {}",
         place, mult, kMaxFfnWidth);
  }
  if (stated != 0 && stated != width) {
    fail(ErrorKind::kFormat, "{}: ffn_mult {} means width {}, but intermediate_size is {}", place,
         mult, width, stated);
  }
  return width;
}

FfnSpec parse_ffn_config(const Json& object, const ModelSpec& spec, const std::string& place) {
  refuse_used(object, {"sparsify", "moe"}, place);
  if (const std::string act = json_string(object, "hidden_act", place, "silu"); act != "silu") {
    fail(ErrorKind::kFormat, "{}: hidden_act '{}' is not supported, expected silu", place, act);
  }
  if (!json_bool(object, "gated", place, true)) {
    fail(ErrorKind::kFormat, "{}: gated = false is not supported, expected a gated FFN", place);
  }
  const Replacement replacement = parse_replacement(object, place);
  if (replacement.no_op) {
    return FfnSpec::none();
  }
  if (replacement.linear) {
    return FfnSpec::linear();
  }
  const std::int64_t width = parse_width(object, spec, place);
  if (width < 1 || width > kMaxFfnWidth) {
    fail(ErrorKind::kFormat, "{}: intermediate_size is {}, expected 1 … {}", place, width,
         kMaxFfnWidth);
  }
  return FfnSpec::swiglu(width);
}

Json make_attention_config(const AttentionSpec& attention, std::int64_t num_heads) {
  Json group;
  if (attention.kind == AttentionKind::kGqa) {
    group = num_heads / attention.kv_heads;
  }
  return {{"n_heads_in_group", group},
          {"no_op", attention.kind == AttentionKind::kNone},
          {"replace_with_linear", attention.kind == AttentionKind::kLinear},
          {"sparsify", nullptr},
          {"num_sink_tokens", nullptr},
          {"unshifted_sink", false},
          {"use_prefill_window_in_sink_attention", false},
          {"window_length", nullptr}};
}

Json make_ffn_config(const FfnSpec& ffn, std::int64_t hidden_size) {
  Json config = {{"no_op", ffn.kind == FfnKind::kNone},
                 {"replace_with_linear", ffn.kind == FfnKind::kLinear},
                 {"sparsify", nullptr}};
  if (ffn.kind != FfnKind::kSwiglu) {
    config["ffn_mult"] = nullptr;
  } else if (ffn.width % kFfnMultStep == 0) {
    config["ffn_mult"] = ffn_mult_of(ffn.width, hidden_size);
  } else {
    config["intermediate_size"] = ffn.width;  // readers look for ffn_mult first: leave it out
  }
  return config;
}

}  // namespace

double ffn_mult_of(std::int64_t width, std::int64_t hidden_size) {
  if (width <= 0 || width % kFfnMultStep != 0) {
    fail(ErrorKind::kUsage, "FFN width {} is no positive multiple of {}: ffn_mult cannot hold it",
         width, kFfnMultStep);
  }
  const double exact = 3.0 * static_cast<double>(width) / (2.0 * static_cast<double>(hidden_size));
  return std::round(exact * 1e6) / 1e6;
}

std::int64_t width_of_ffn_mult(double ffn_mult, std::int64_t hidden_size) {
  const double exact = 2.0 * ffn_mult * static_cast<double>(hidden_size) / 3.0;
  if (!(exact > 0.0) || exact > static_cast<double>(kMaxFfnWidth)) {
    return 0;
  }
  const auto width = static_cast<std::int64_t>(exact);
  return (width + kFfnMultStep - 1) / kFfnMultStep * kFfnMultStep;
}

Architecture parse_block_configs(const Json& config, const ModelSpec& spec, std::int64_t num_layers,
                                 const std::string& place) {
  const Json* blocks = find_json_member(config, "block_configs");
  if (blocks == nullptr || !blocks->is_array()) {
    fail(ErrorKind::kFormat, "{}: \"block_configs\" is missing or no list", place);
  }
  if (static_cast<std::int64_t>(blocks->size()) != num_layers) {
    fail(ErrorKind::kFormat, "{}: block_configs has {} entries, expected num_hidden_layers = {}",
         place, blocks->size(), num_layers);
  }
  Architecture layers;
  for (std::size_t i = 0; i < blocks->size(); ++i) {
    const Json& block = (*blocks)[i];
    const std::string block_place = fmt::format("{}: block_configs[{}]", place, i);
    const Json& attention = sub_block(block, "attention", block_place);
    const Json& ffn = sub_block(block, "ffn", block_place);
    refuse_used(block, {"parallel_blocks"}, block_place);
    layers.push_back({parse_attention_config(attention, spec, block_place + ".attention"),
                      parse_ffn_config(ffn, spec, block_place + ".ffn")});
  }
  return layers;
}

Json make_block_configs(const ModelSpec& spec) {
  Json blocks = Json::array();
  for (const BlockSpec& block : spec.layers) {
    blocks.push_back({{"attention", make_attention_config(block.attention, spec.num_heads)},
                      {"ffn", make_ffn_config(block.ffn, spec.hidden_size)}});
  }
  return blocks;
}

Json make_puzzletron_blocks(const ModelSpec& spec, const std::string& torch_dtype) {
  const char* precision = torch_dtype == "bfloat16"  ? "bf16"
                          : torch_dtype == "float16" ? "fp16"
                                                     : "fp32";
  const auto sub_block_config = [precision](bool no_op, bool is_linear) {
    return Json{{"no_op", no_op},
                {"replace_with_linear", is_linear},
                {"sparsify", nullptr},
                {"weights_precision", precision}};
  };
  Json blocks = Json::array();
  for (const BlockSpec& block : spec.layers) {
    const auto size = [](std::int64_t count) { return count > 0 ? Json(count) : Json(); };
    Json attention = sub_block_config(block.attention.kind == AttentionKind::kNone,
                                      block.attention.kind == AttentionKind::kLinear);
    attention.update({{"num_key_value_heads", size(block.attention.kv_heads)},
                      {"llama4", nullptr},
                      {"mamba", nullptr}});
    Json ffn =
        sub_block_config(block.ffn.kind == FfnKind::kNone, block.ffn.kind == FfnKind::kLinear);
    ffn.update({{"moe", nullptr}, {"intermediate_size", size(block.ffn.width)}});
    blocks.push_back({{"attention", attention}, {"ffn", ffn}, {"parallel_blocks", nullptr}});
  }
  return blocks;
}

}  // namespace puzzle
