#include "puzzle/arch/cost.h"

#include <limits>

#include "puzzle/arch/padded_model.h"
#include "puzzle/base/error.h"

namespace puzzle {
namespace {

__extension__ using WideInt = __int128;

// Adds up tensors of one part.
struct PartSum {
  const WeightTypes& types;
  PartCost cost;

  void matrix(std::int64_t rows, std::int64_t columns) {
    tensor(rows, columns, stored_dtype(types.matrix, columns));
  }
  void vector(std::int64_t length) { tensor(1, length, types.vector); }
  void tensor(std::int64_t rows, std::int64_t columns, DType dtype) {
    const auto elements = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns);
    cost.parameters += rows * columns;
    cost.weight_bytes += static_cast<std::int64_t>(byte_size(dtype, elements, "weight types"));
  }
};

enum class FfnBiases { kNone, kAsModel, kGateOnly };

PartCost swiglu_cost(const ModelSpec& spec, std::int64_t width, FfnBiases biases,
                     const WeightTypes& types) {
  PartSum sum{types, {}};
  sum.vector(spec.hidden_size);  // norm
  sum.matrix(width, spec.hidden_size);
  sum.matrix(width, spec.hidden_size);
  sum.matrix(spec.hidden_size, width);
  const bool all = biases == FfnBiases::kAsModel && spec.mlp_bias;
  if (all || biases == FfnBiases::kGateOnly) {
    sum.vector(width);
  }
  if (all) {
    sum.vector(width);
    sum.vector(spec.hidden_size);
  }
  return sum.cost;
}

PartCost linear_cost(const ModelSpec& spec, const WeightTypes& types) {
  PartSum sum{types, {}};
  sum.vector(spec.hidden_size);  // norm
  sum.matrix(spec.hidden_size, spec.hidden_size);
  return sum.cost;
}

std::int64_t kv_bytes_per_token(const ModelSpec& spec, std::int64_t kv_heads, DType dtype) {
  if (spec.head_dim % dtype_info(dtype).block_elements != 0) {
    fail(ErrorKind::kUsage,
         "KV cache type {}: head width {} is no multiple of its block of {}; use F16",
         dtype_name(dtype), spec.head_dim, dtype_info(dtype).block_elements);
  }
  const auto elements = static_cast<std::uint64_t>(2 * kv_heads * spec.head_dim);
  return static_cast<std::int64_t>(byte_size(dtype, elements, "KV cache"));
}

PartCost gqa_cost(const ModelSpec& spec, std::int64_t heads, std::int64_t kv_heads,
                  const WeightTypes& types) {
  const std::int64_t q_rows = heads * spec.head_dim;
  const std::int64_t kv_rows = kv_heads * spec.head_dim;
  PartSum sum{types, {}};
  sum.vector(spec.hidden_size);  // norm
  sum.matrix(q_rows, spec.hidden_size);
  sum.matrix(kv_rows, spec.hidden_size);
  sum.matrix(kv_rows, spec.hidden_size);
  sum.matrix(spec.hidden_size, q_rows);
  if (spec.attention_bias) {
    sum.vector(q_rows);
    sum.vector(kv_rows);
    sum.vector(kv_rows);
  }
  if (spec.attention_output_bias) {
    sum.vector(spec.hidden_size);
  }
  if (spec.qk_norm) {
    sum.vector(spec.head_dim);
    sum.vector(spec.head_dim);
  }
  sum.cost.kv_bytes_per_token = kv_bytes_per_token(spec, kv_heads, types.kv);
  return sum.cost;
}

// Limits under which no sum of model_flops leaves 128 bits.
void check_query(const FlopsQuery& query) {
  constexpr std::int64_t kMaxSequences = std::int64_t{1} << 32;
  constexpr std::int64_t kMaxTokens = std::int64_t{1} << 27;
  const auto check = [](const char* what, std::int64_t count, std::int64_t most) {
    if (count < 0 || count > most) {
      fail(ErrorKind::kUsage, "FLOPs: {} is {}, expected 0 … {}", what, count, most);
    }
  };
  check("batch", query.batch, kMaxSequences);
  check("new_tokens", query.new_tokens, kMaxTokens);
  check("cached_tokens", query.cached_tokens, kMaxTokens);
  if (query.logits_per_sequence != -1) {
    check("logits_per_sequence", query.logits_per_sequence, query.new_tokens);
  }
}

std::int64_t narrow_flops(WideInt flops) {
  if (flops < 0 || flops > std::numeric_limits<std::int64_t>::max()) {
    fail(ErrorKind::kUsage, "FLOPs: the result is beyond 2^63 - 1; ask for fewer tokens at once");
  }
  return static_cast<std::int64_t>(flops);
}

WideInt wide_attention_flops(const ModelSpec& spec, const AttentionSpec& attention,
                             const FlopsQuery& query) {
  const WideInt tokens = WideInt{query.batch} * query.new_tokens;
  const WideInt hidden = spec.hidden_size;
  switch (attention.kind) {
    case AttentionKind::kNone:
      return 0;
    case AttentionKind::kLinear:
      return 2 * tokens * hidden * hidden;
    case AttentionKind::kGqa:
      break;
  }
  const WideInt new_tokens = query.new_tokens;
  const WideInt pairs =
      query.batch * (new_tokens * query.cached_tokens + new_tokens * (new_tokens + 1) / 2);
  return 4 * tokens * hidden * spec.head_dim * (spec.num_heads + attention.kv_heads) +
         4 * pairs * spec.num_heads * spec.head_dim;
}

WideInt wide_ffn_flops(const ModelSpec& spec, const FfnSpec& ffn, const FlopsQuery& query) {
  const WideInt tokens = WideInt{query.batch} * query.new_tokens;
  const WideInt hidden = spec.hidden_size;
  switch (ffn.kind) {
    case FfnKind::kNone:
      return 0;
    case FfnKind::kLinear:
      return 2 * tokens * hidden * hidden;
    case FfnKind::kSwiglu:
      return 6 * tokens * hidden * ffn.width;
  }
  return 0;
}

WideInt wide_head_flops(const ModelSpec& spec, const FlopsQuery& query) {
  const WideInt positions =
      query.logits_per_sequence < 0 ? query.new_tokens : query.logits_per_sequence;
  return 2 * WideInt{query.batch} * positions * spec.hidden_size * spec.vocab_size;
}

}  // namespace

DType stored_dtype(DType wanted, std::int64_t row_length) {
  const auto fills = [row_length](DType dtype) {
    return row_length % dtype_info(dtype).block_elements == 0;
  };
  if (wanted == DType::kQ4_K && !fills(wanted)) {
    wanted = DType::kQ5_0;
  } else if (wanted == DType::kQ6_K && !fills(wanted)) {
    wanted = DType::kQ8_0;
  }
  return fills(wanted) ? wanted : DType::kF16;
}

PartCost& PartCost::operator+=(const PartCost& other) {
  parameters += other.parameters;
  weight_bytes += other.weight_bytes;
  kv_bytes_per_token += other.kv_bytes_per_token;
  return *this;
}

PartCost attention_cost(const ModelSpec& spec, const AttentionSpec& attention,
                        const WeightTypes& types) {
  switch (attention.kind) {
    case AttentionKind::kNone:
      return {};
    case AttentionKind::kLinear:
      return linear_cost(spec, types);
    case AttentionKind::kGqa:
      return gqa_cost(spec, spec.num_heads, attention.kv_heads, types);
  }
  return {};
}

PartCost ffn_cost(const ModelSpec& spec, const FfnSpec& ffn, const WeightTypes& types) {
  switch (ffn.kind) {
    case FfnKind::kNone:
      return {};
    case FfnKind::kLinear:
      return linear_cost(spec, types);
    case FfnKind::kSwiglu:
      return swiglu_cost(spec, ffn.width, FfnBiases::kAsModel, types);
  }
  return {};
}

PartCost lowered_attention_cost(const ModelSpec& spec, const LoweredBlock& lowered,
                                const WeightTypes& types) {
  if (lowered.dropped) {
    return {};
  }
  if (lowered.one_zero_head) {
    return gqa_cost(spec, 1, 1, types);
  }
  return attention_cost(spec, lowered.attention, types);
}

PartCost lowered_ffn_cost(const ModelSpec& spec, const LoweredBlock& lowered,
                          const WeightTypes& types) {
  if (lowered.dropped) {
    return {};
  }
  if (lowered.zero_ffn) {
    return swiglu_cost(spec, lowered.ffn.width, FfnBiases::kNone, types);
  }
  if (lowered.linear_ffn_as_swiglu) {
    return swiglu_cost(spec, lowered.ffn.width, FfnBiases::kGateOnly, types);
  }
  return ffn_cost(spec, lowered.ffn, types);
}

PartCost block_cost(const ModelSpec& spec, std::int64_t layer, const BlockSpec& block,
                    ExportTarget target, const WeightTypes& types) {
  if (target == ExportTarget::kPadded) {
    fail(ErrorKind::kUsage,
         "cost of a block in a padded model: its size is that of all layers together");
  }
  const LoweredBlock lowered = lower_block(target, spec, layer, block);
  PartCost cost = lowered_attention_cost(spec, lowered, types);
  cost += lowered_ffn_cost(spec, lowered, types);
  return cost;
}

PartCost fixed_cost(const ModelSpec& spec, const WeightTypes& types, ExportTarget target) {
  PartSum sum{types, {}};
  const DType dtype = stored_dtype(types.embedding, spec.hidden_size);
  sum.tensor(spec.vocab_size, spec.hidden_size, dtype);
  sum.vector(spec.hidden_size);  // final norm
  if (!spec.tie_embeddings) {
    sum.tensor(spec.vocab_size, spec.hidden_size, dtype);
  }
  if (target == ExportTarget::kDeci && spec.rope.kind == RopeKind::kLlama3) {
    sum.cost.weight_bytes += spec.head_dim / 2 * static_cast<std::int64_t>(sizeof(float));
  }
  return sum.cost;
}

PartCost model_cost(const ModelSpec& spec, ExportTarget target, const WeightTypes& types) {
  if (target == ExportTarget::kPadded) {
    return model_cost(padded_spec(spec), ExportTarget::kNative, types);
  }
  PartCost cost = fixed_cost(spec, types, target);
  for (const LoweredBlock& lowered : lower_model(target, spec)) {
    cost += lowered_attention_cost(spec, lowered, types);
    cost += lowered_ffn_cost(spec, lowered, types);
  }
  return cost;
}

std::int64_t num_parameters(const ModelSpec& spec) {
  return model_cost(spec, ExportTarget::kNative, WeightTypes{}).parameters;
}

std::int64_t attention_flops(const ModelSpec& spec, const AttentionSpec& attention,
                             const FlopsQuery& query) {
  check_query(query);
  return narrow_flops(wide_attention_flops(spec, attention, query));
}

std::int64_t ffn_flops(const ModelSpec& spec, const FfnSpec& ffn, const FlopsQuery& query) {
  check_query(query);
  return narrow_flops(wide_ffn_flops(spec, ffn, query));
}

std::int64_t head_flops(const ModelSpec& spec, const FlopsQuery& query) {
  check_query(query);
  return narrow_flops(wide_head_flops(spec, query));
}

std::int64_t model_flops(const ModelSpec& spec, const FlopsQuery& query) {
  check_query(query);
  WideInt flops = wide_head_flops(spec, query);
  for (const BlockSpec& block : spec.layers) {
    flops += wide_attention_flops(spec, block.attention, query);
    flops += wide_ffn_flops(spec, block.ffn, query);
  }
  return narrow_flops(flops);
}

}  // namespace puzzle
