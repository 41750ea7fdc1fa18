#include "puzzle/arch/hf_layers.h"

#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/nemotron_blocks.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

AttentionSpec checked_gqa(std::int64_t kv_heads, const ModelSpec& spec, const std::string& what) {
  if (kv_heads < 1 || spec.num_heads % kv_heads != 0) {
    fail(ErrorKind::kFormat, "{} is {}, expected a divisor of num_attention_heads {}", what,
         kv_heads, spec.num_heads);
  }
  return AttentionSpec::gqa(kv_heads);
}

AttentionSpec parse_gqa(const Json& object, const ModelSpec& spec, const std::string& place) {
  return checked_gqa(json_int(object, "num_key_value_heads", place, spec.num_heads), spec,
                     place + ": num_key_value_heads");
}

FfnSpec parse_swiglu(const Json& object, const std::string& place) {
  return FfnSpec::swiglu(parse_hf_count(object, "intermediate_size", kMaxFfnWidth, place));
}

void parse_kv_heads_per_layer(const Json& list, const ModelSpec& spec, const std::string& place,
                              Architecture& layers) {
  if (!list.is_array() || list.size() != layers.size()) {
    fail(ErrorKind::kFormat,
         "{}: num_key_value_heads_per_layer is no list of num_hidden_layers = {} numbers", place,
         layers.size());
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string what = fmt::format("{}: num_key_value_heads_per_layer[{}]", place, i);
    if (!list[i].is_number_integer()) {
      fail(ErrorKind::kFormat, "{} is {}, expected a whole number", what, list[i].dump());
    }
    layers[i].attention = checked_gqa(list[i].get<std::int64_t>(), spec, what);
  }
}

void skip_parts(const Json& parts, const std::string& place, BlockSpec& block) {
  for (const Json& part : parts.is_array() ? parts : Json::array({parts})) {
    if (part == Json("attention")) {
      block.attention = AttentionSpec::none();
    } else if (part == Json("mlp")) {
      block.ffn = FfnSpec::none();
    } else {
      fail(ErrorKind::kFormat, "{}: skip holds {}, expected attention or mlp", place, part.dump());
    }
  }
}

// Older files pad the number with zeros ("03").
std::optional<std::size_t> layer_number(const std::string& text, std::size_t num_layers) {
  const auto layer = parse_number<std::size_t>(text);
  return layer && *layer < num_layers ? layer : std::nullopt;
}

void parse_per_layer_config(const Json& overrides, const ModelSpec& spec, const std::string& place,
                            Architecture& layers) {
  if (!overrides.is_object()) {
    fail(ErrorKind::kFormat, "{}: per_layer_config is {}, expected an object", place,
         overrides.type_name());
  }
  for (const auto& [name, changes] : overrides.items()) {
    const std::string layer_place = fmt::format("{}: per_layer_config.{}", place, name);
    const auto layer = layer_number(name, layers.size());
    if (!layer || !changes.is_object()) {
      fail(ErrorKind::kFormat, "{} is no object for a layer of 0 … {}", layer_place,
           layers.size() - 1);
    }
    BlockSpec& block = layers[*layer];
    for (const auto& [key, value] : changes.items()) {
      if (key == "num_key_value_heads") {
        block.attention = parse_gqa(changes, spec, layer_place);
      } else if (key == "intermediate_size") {
        block.ffn = parse_swiglu(changes, layer_place);
      } else if (key != "skip") {
        fail(ErrorKind::kFormat,
             "{}: {} is not supported, expected num_key_value_heads, intermediate_size or skip",
             layer_place, key);
      }
    }
    if (const Json* parts = find_json_member(changes, "skip"); parts != nullptr) {
      skip_parts(*parts, layer_place, block);  // wins over sizes given beside it
    }
  }
}

}  // namespace

std::int64_t parse_hf_count(const Json& object, const char* key, std::int64_t most,
                            const std::string& place) {
  const std::int64_t count = json_int(object, key, place);
  if (count < 1 || count > most) {
    fail(ErrorKind::kFormat, "{}: {} is {}, expected 1 … {}", place, key, count, most);
  }
  return count;
}

Architecture parse_hf_layers(const Json& config, const HfFamily& family, const ModelSpec& spec,
                             const std::string& place) {
  const std::int64_t num_layers = parse_hf_count(config, "num_hidden_layers", kMaxLayers, place);
  const Json* overrides = find_json_member(config, "per_layer_config");
  const Json* kv_heads = find_json_member(config, "num_key_value_heads_per_layer");
  if (family.needs_block_configs || find_json_member(config, "block_configs") != nullptr) {
    if (overrides != nullptr || kv_heads != nullptr) {
      fail(ErrorKind::kFormat,
           "{}: block_configs beside per_layer_config or num_key_value_heads_per_layer, expected "
           "one of them",
           place);
    }
    return parse_block_configs(config, spec, num_layers, place);
  }
  Architecture layers(static_cast<std::size_t>(num_layers));
  const FfnSpec ffn = parse_swiglu(config, place);
  if (kv_heads != nullptr) {
    parse_kv_heads_per_layer(*kv_heads, spec, place, layers);
  } else {
    const AttentionSpec attention = parse_gqa(config, spec, place);
    for (BlockSpec& block : layers) {
      block.attention = attention;
    }
  }
  for (BlockSpec& block : layers) {
    block.ffn = ffn;
  }
  if (overrides != nullptr) {
    parse_per_layer_config(*overrides, spec, place, layers);
  }
  return layers;
}

}  // namespace puzzle
