#include "puzzle/arch/model_spec.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"

namespace puzzle {
namespace {

// Tokens of context; only a guard against nonsense.
constexpr std::int64_t kMaxContext = std::int64_t{1} << 40;

struct SpecChecker {
  const std::string& place;

  void between(std::string_view what, std::int64_t value, std::int64_t low,
               std::int64_t high) const {
    if (value < low || value > high) {
      fail(ErrorKind::kFormat, "{}: {} is {}, expected {} … {}", place, what, value, low, high);
    }
  }
  void positive(std::string_view what, double value) const {
    if (!std::isfinite(value) || value <= 0.0) {
      fail(ErrorKind::kFormat, "{}: {} is {}, expected a positive number", place, what, value);
    }
  }
  void at_least_one(std::string_view what, double value) const {
    if (!std::isfinite(value) || value < 1.0) {
      fail(ErrorKind::kFormat, "{}: {} is {}, expected at least 1", place, what, value);
    }
  }
};

void check_divisors(const SpecChecker& check, const RopeSpec& rope, std::int64_t head_dim) {
  if (static_cast<std::int64_t>(rope.frequency_divisors.size()) != head_dim / 2) {
    fail(ErrorKind::kFormat,
         "{}: {} rotary frequency divisors, expected {} (half of the head width {})", check.place,
         rope.frequency_divisors.size(), head_dim / 2, head_dim);
  }
  for (const float divisor : rope.frequency_divisors) {
    check.positive("a rotary frequency divisor", divisor);
  }
}

void check_rope(const SpecChecker& check, const RopeSpec& rope, std::int64_t head_dim) {
  check.positive("the rotary base", rope.theta);
  if (!rope.frequency_divisors.empty()) {
    if (rope.kind != RopeKind::kLlama3) {
      fail(ErrorKind::kFormat, "{}: rotary frequency divisors with {} scaling, expected llama3",
           check.place, rope_kind_name(rope.kind));
    }
    check_divisors(check, rope, head_dim);
    return;
  }
  switch (rope.kind) {
    case RopeKind::kDefault:
      return;
    case RopeKind::kLinear:
      check.positive("the rotary scaling factor", rope.factor);
      return;
    case RopeKind::kLlama3:
      check.at_least_one("the rotary scaling factor", rope.factor);
      check.between("the original context", rope.original_context, 1, kMaxContext);
      check.positive("low_freq_factor", rope.low_frequency_factor);
      check.positive("high_freq_factor", rope.high_frequency_factor);
      if (rope.high_frequency_factor <= rope.low_frequency_factor) {
        fail(ErrorKind::kFormat, "{}: high_freq_factor {} is not above low_freq_factor {}",
             check.place, rope.high_frequency_factor, rope.low_frequency_factor);
      }
      return;
    case RopeKind::kYarn:
      check.at_least_one("the rotary scaling factor", rope.factor);
      check.between("the original context", rope.original_context, 1, kMaxContext);
      check.positive("beta_fast", rope.beta_fast);
      check.positive("beta_slow", rope.beta_slow);
      if (rope.beta_fast < rope.beta_slow) {
        fail(ErrorKind::kFormat, "{}: beta_fast {} is below beta_slow {}", check.place,
             rope.beta_fast, rope.beta_slow);
      }
      if (rope.theta <= 1.0) {
        fail(ErrorKind::kFormat, "{}: the rotary base is {}, expected more than 1 with yarn",
             check.place, rope.theta);
      }
      if (rope.attention_factor != 0.0) {
        check.positive("the rotary attention factor", rope.attention_factor);
      }
      return;
  }
}

void check_block(const SpecChecker& check, const ModelSpec& spec, std::size_t layer) {
  const AttentionSpec& attention = spec.layers[layer].attention;
  const FfnSpec& ffn = spec.layers[layer].ffn;
  if (attention.kind == AttentionKind::kGqa) {
    if (attention.kv_heads <= 0 || spec.num_heads % attention.kv_heads != 0) {
      fail(ErrorKind::kFormat, "{}: layer {} has {} KV heads, expected a divisor of the {} heads",
           check.place, layer, attention.kv_heads, spec.num_heads);
    }
  } else if (attention.kv_heads != 0) {
    fail(ErrorKind::kFormat, "{}: layer {} has {} KV heads but {} attention", check.place, layer,
         attention.kv_heads, attention.name());
  }
  if (ffn.kind == FfnKind::kSwiglu) {
    check.between(fmt::format("the FFN width of layer {}", layer), ffn.width, 1, kMaxFfnWidth);
  } else if (ffn.width != 0) {
    fail(ErrorKind::kFormat, "{}: layer {} has FFN width {} but FFN {}", check.place, layer,
         ffn.width, ffn.name());
  }
}

}  // namespace

std::string_view rope_kind_name(RopeKind kind) {
  switch (kind) {
    case RopeKind::kDefault:
      return "default";
    case RopeKind::kLinear:
      return "linear";
    case RopeKind::kLlama3:
      return "llama3";
    case RopeKind::kYarn:
      return "yarn";
  }
  return "default";
}

void check_model_spec(const ModelSpec& spec, const std::string& place) {
  const SpecChecker check{place};
  if (spec.family != "llama") {
    fail(ErrorKind::kFormat, "{}: model family '{}' is not supported, expected llama", place,
         spec.family);
  }
  check.between("the hidden size", spec.hidden_size, 1, kMaxHiddenSize);
  check.between("the number of heads", spec.num_heads, 1, kMaxHiddenSize);
  check.between("the head width", spec.head_dim, 1, kMaxHiddenSize);
  check.between("heads times head width", spec.num_heads * spec.head_dim, 1, kMaxHiddenSize);
  if (spec.head_dim % 2 != 0) {
    fail(ErrorKind::kFormat,
         "{}: the head width is {}, expected an even number (rotary embedding turns pairs)", place,
         spec.head_dim);
  }
  check.between("the vocabulary size", spec.vocab_size, 1, kMaxVocabSize);
  check.between("the context length", spec.context_length, 1, kMaxContext);
  check.between("the number of layers", spec.num_layers(), 1, kMaxLayers);
  check.positive("the epsilon of RMSNorm", spec.rms_norm_eps);
  check_rope(check, spec.rope, spec.head_dim);
  check.between("the begin-of-text token", spec.bos_token, -1, spec.vocab_size - 1);
  for (const std::int64_t token : spec.eos_tokens) {
    check.between("an end-of-text token", token, 0, spec.vocab_size - 1);
  }
  for (std::size_t layer = 0; layer < spec.layers.size(); ++layer) {
    check_block(check, spec, layer);
  }
}

void limit_context(ModelSpec& spec, std::int64_t tokens, std::string_view why) {
  spec.context_limit = fmt::format("{} (the file says {} tokens)", why, spec.context_length);
  spec.context_length = std::min(spec.context_length, tokens);
}

ModelSpec with_layers(ModelSpec spec, Architecture layers) {
  spec.layers = std::move(layers);
  return spec;
}

void add_model_spec_to_key(KeyBuilder& key, const ModelSpec& spec) {
  key.add("family", spec.family)
      .add("hidden_size", spec.hidden_size)
      .add("num_heads", spec.num_heads)
      .add("head_dim", spec.head_dim)
      .add("vocab_size", spec.vocab_size)
      .add("context_length", spec.context_length)
      .add("rms_norm_eps", spec.rms_norm_eps)
      .add("tie_embeddings", spec.tie_embeddings)
      .add("attention_bias", spec.attention_bias)
      .add("attention_output_bias", spec.attention_output_bias)
      .add("mlp_bias", spec.mlp_bias);
  if (spec.qk_norm) {
    key.add("qk_norm", true);  // only where it is: runs of models without it keep their keys
  }
  const RopeSpec& rope = spec.rope;
  key.add("rope", rope_kind_name(rope.kind))
      .add("theta", rope.theta)
      .add("factor", rope.factor)
      .add("low_frequency_factor", rope.low_frequency_factor)
      .add("high_frequency_factor", rope.high_frequency_factor)
      .add("original_context", rope.original_context)
      .add("beta_fast", rope.beta_fast)
      .add("beta_slow", rope.beta_slow)
      .add("attention_factor", rope.attention_factor)
      .add("truncate", rope.truncate)
      .add_bytes("frequency_divisors", std::as_bytes(std::span(rope.frequency_divisors)));
  key.add("bos_token", spec.bos_token);
  for (const std::int64_t token : spec.eos_tokens) {
    key.add("eos_token", token);
  }
  for (const BlockSpec& block : spec.layers) {
    key.add("block", block.name());
  }
}

}  // namespace puzzle
