#include "puzzle/arch/padded_model.h"

#include <algorithm>
#include <numeric>

#include "puzzle/arch/hf_family.h"

namespace puzzle {
namespace {

// The layer that all become.
struct CommonShape {
  std::int64_t kv_heads = 1;
  std::int64_t width = 0;
  bool has_linear = false;

  void widen(const BlockSpec& block, std::int64_t hidden_size) {
    if (block.attention.kind == AttentionKind::kGqa) {
      kv_heads = std::lcm(kv_heads, block.attention.kv_heads);
    }
    width = std::max(width, block.ffn.width);
    if (block.attention.kind == AttentionKind::kLinear || block.ffn.kind == FfnKind::kLinear) {
      width = std::max(width, hidden_size);
      has_linear = true;
    }
  }
  [[nodiscard]] BlockSpec block() const {
    return {AttentionSpec::gqa(kv_heads), FfnSpec::swiglu(width > 0 ? width : kZeroFfnWidth)};
  }
};

CommonShape common_shape(const ModelSpec& spec) {
  CommonShape shape;
  for (const BlockSpec& block : spec.layers) {
    shape.widen(block, spec.hidden_size);
  }
  return shape;
}

std::size_t layers_written(const LoweredBlock& lowered) {
  return lowered.dropped ? 0 : lowered.inserted_layer ? 2 : 1;
}

}  // namespace

LoweredBlock lower_for_padded(const ModelSpec& spec, const BlockSpec& block) {
  const bool has_attention = block.attention.kind != AttentionKind::kNone;
  const bool has_ffn = block.ffn.kind != FfnKind::kNone;
  LoweredBlock lowered{block.attention, block.ffn};
  if (!has_attention && !has_ffn) {
    lowered.dropped = true;
    return lowered;
  }
  CommonShape shape = common_shape(spec);
  shape.widen(block, spec.hidden_size);
  lowered.attention = shape.block().attention;
  lowered.ffn = shape.block().ffn;
  lowered.zero_attention = block.attention.kind != AttentionKind::kGqa;
  lowered.linear_ffn_as_swiglu = block.ffn.kind == FfnKind::kLinear;
  lowered.linear_attention_as_ffn = block.attention.kind == AttentionKind::kLinear;
  lowered.inserted_layer = lowered.linear_attention_as_ffn && has_ffn;
  lowered.zero_ffn = !has_ffn && !lowered.linear_attention_as_ffn;
  return lowered;
}

ModelSpec padded_spec(const ModelSpec& spec) {
  const CommonShape shape = common_shape(spec);
  std::size_t layers = 0;
  for (const BlockSpec& block : spec.layers) {
    layers += layers_written(lower_for_padded(spec, block));
  }
  ModelSpec plain = with_layers(spec, Architecture(layers, shape.block()));
  plain.mlp_bias = spec.mlp_bias || shape.has_linear;
  if (find_plain_family(plain, "") == nullptr) {
    plain.attention_bias = plain.attention_output_bias =
        spec.attention_bias || spec.attention_output_bias;
  }
  return plain;
}

}  // namespace puzzle
