#include "puzzle/arch/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

constexpr const char* kDivisorsType = "frequency-divisors";

// The object to read and its place; null if the file has plain rotary embedding.
struct RopeSource {
  const Json* values = nullptr;
  std::string place;
};

RopeSource find_rope_source(const Json& config, const std::string& place) {
  const char* key = "rope_parameters";
  const Json* values = find_json_member(config, key);
  if (values == nullptr) {
    key = "rope_scaling";
    values = find_json_member(config, key);
  }
  if (values == nullptr) {
    return {};
  }
  RopeSource source{values, place + ": " + key};
  if (!values->is_object()) {
    fail(ErrorKind::kFormat, "{} is {}, expected an object", source.place, values->type_name());
  }
  // transformers 5 may nest the parameters by layer type.
  for (const auto& [name, member] : values->items()) {
    if (member.is_object() && name != "full_attention") {
      fail(ErrorKind::kFormat, "{}.{}: layer type {} is not supported, expected full_attention",
           source.place, name, name);
    }
  }
  if (const Json* nested = find_json_member(*values, "full_attention"); nested != nullptr) {
    source = {nested, source.place + ".full_attention"};
  }
  return source;
}

std::int64_t original_context(const Json& config, const RopeSource& source,
                              std::int64_t context_length, const std::string& place) {
  const char* key = "original_max_position_embeddings";
  const std::int64_t in_values = json_int(*source.values, key, source.place, context_length);
  return json_int(config, key, place, in_values);
}

// transformers' rule; 0 where it is RopeSpec's default, 0.1 ln(factor) + 1.
double yarn_attention_factor(const RopeSource& source, double factor) {
  const double given = json_double(*source.values, "attention_factor", source.place, 0.0);
  const double mscale = json_double(*source.values, "mscale", source.place, 0.0);
  const double mscale_all = json_double(*source.values, "mscale_all_dim", source.place, 0.0);
  if (find_json_member(*source.values, "attention_factor") != nullptr) {
    return given;
  }
  if (mscale == 0.0 || mscale_all == 0.0) {
    return 0.0;
  }
  const auto scaled = [factor](double scale) {
    return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
  };
  return scaled(mscale) / scaled(mscale_all);
}

std::vector<float> parse_divisors(const RopeSource& source) {
  const Json* values = find_json_member(*source.values, "divisors");
  if (values == nullptr || !values->is_array()) {
    fail(ErrorKind::kFormat, "{}: \"divisors\" is missing, expected a list of numbers",
         source.place);
  }
  std::vector<float> divisors;
  for (const Json& value : *values) {
    if (!value.is_number()) {
      fail(ErrorKind::kFormat, "{}: \"divisors\" holds {}, expected numbers", source.place,
           value.type_name());
    }
    divisors.push_back(value.get<float>());
  }
  return divisors;
}

void parse_scaling(const Json& config, const RopeSource& source, std::int64_t context_length,
                   const std::string& place, HfRope& parsed) {
  RopeSpec& rope = parsed.rope;
  const std::string legacy = json_string(*source.values, "type", source.place, "default");
  const std::string type = json_string(*source.values, "rope_type", source.place, legacy);
  if (type == "default") {
    return;
  }
  if (type == "dynamic") {
    parsed.exact_tokens =
        std::min(context_length, original_context(config, source, context_length, place));
    if (parsed.exact_tokens < 1) {
      fail(ErrorKind::kFormat, "{}: dynamic scaling beyond {} tokens, expected at least 1",
           source.place, parsed.exact_tokens);
    }
    return;
  }
  if (type == kDivisorsType) {
    rope.kind = RopeKind::kLlama3;
    rope.frequency_divisors = parse_divisors(source);
    return;
  }
  const bool is_llama3 = type == "llama3";
  const bool is_yarn = type == "yarn";
  if (!is_llama3 && !is_yarn && type != "linear") {
    fail(ErrorKind::kFormat,
         "{}: rope type '{}' is not supported, expected default, linear, dynamic, llama3 or yarn",
         source.place, type);
  }
  rope.kind = is_llama3 ? RopeKind::kLlama3 : is_yarn ? RopeKind::kYarn : RopeKind::kLinear;
  rope.factor = json_double(*source.values, "factor", source.place);
  if (is_llama3 || is_yarn) {
    rope.original_context = original_context(config, source, context_length, place);
  }
  if (is_llama3) {
    rope.low_frequency_factor = json_double(*source.values, "low_freq_factor", source.place);
    rope.high_frequency_factor = json_double(*source.values, "high_freq_factor", source.place);
  }
  if (is_yarn) {
    rope.beta_fast = json_double(*source.values, "beta_fast", source.place, rope.beta_fast);
    rope.beta_slow = json_double(*source.values, "beta_slow", source.place, rope.beta_slow);
    rope.attention_factor = yarn_attention_factor(source, rope.factor);
    rope.truncate = json_bool(*source.values, "truncate", source.place, true);
  }
}

}  // namespace

HfRope parse_hf_rope(const Json& config, std::int64_t context_length, const std::string& place) {
  HfRope parsed;
  RopeSpec& rope = parsed.rope;
  rope.theta = json_double(config, "rope_theta", place, rope.theta);
  const RopeSource source = find_rope_source(config, place);
  if (source.values == nullptr) {
    return parsed;
  }
  rope.theta = json_double(*source.values, "rope_theta", source.place, rope.theta);
  if (json_double(*source.values, "partial_rotary_factor", source.place, 1.0) != 1.0) {
    fail(ErrorKind::kFormat, "{}: partial_rotary_factor other than 1 is not supported",
         source.place);
  }
  parse_scaling(config, source, context_length, place, parsed);
  return parsed;
}

Json make_hf_rope_scaling(const RopeSpec& rope) {
  Json scaling;
  switch (rope.kind) {
    case RopeKind::kDefault:
      break;
    case RopeKind::kLinear:
      scaling = {{"rope_type", "linear"}, {"factor", rope.factor}};
      break;
    case RopeKind::kLlama3:
      if (rope.original_context == 0) {
        scaling = {{"rope_type", kDivisorsType}, {"divisors", rope.frequency_divisors}};
        break;
      }
      scaling = {{"rope_type", "llama3"},
                 {"factor", rope.factor},
                 {"low_freq_factor", rope.low_frequency_factor},
                 {"high_freq_factor", rope.high_frequency_factor},
                 {"original_max_position_embeddings", rope.original_context}};
      break;
    case RopeKind::kYarn:
      scaling = {{"rope_type", "yarn"},
                 {"factor", rope.factor},
                 {"original_max_position_embeddings", rope.original_context},
                 {"beta_fast", rope.beta_fast},
                 {"beta_slow", rope.beta_slow},
                 {"truncate", rope.truncate}};
      if (rope.attention_factor != 0.0) {
        scaling["attention_factor"] = rope.attention_factor;
      }
      break;
  }
  return scaling;
}

}  // namespace puzzle
