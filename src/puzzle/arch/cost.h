// What variants cost, in exact integers (DESIGN 6). Tests compare with the bytes of really built models.
#pragma once

#include <cstdint>

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

// Numeric types of the stored weights and of the KV cache. Norms and biases are always F32 in GGUF and
// follow `matrix` in safetensors; `vector` says which.
struct WeightTypes {
  DType matrix = DType::kF32;
  DType embedding = DType::kF32;  // token embedding, and the head where it is not tied
  DType vector = DType::kF32;     // norms, biases
  DType kv = DType::kF16;         // KV cache
};

struct PartCost {
  std::int64_t parameters = 0;
  std::int64_t weight_bytes = 0;
  std::int64_t kv_bytes_per_token = 0;  // per sequence

  PartCost& operator+=(const PartCost& other);
};

// Floating point operations (a multiply and an add count 2): matrix products, attention scores and
// values; norms and activations are left out.
struct FlopsQuery {
  std::int64_t batch = 1;
  std::int64_t new_tokens = 1;      // per sequence
  std::int64_t cached_tokens = 0;   // per sequence, before the new ones
};

// Sub-blocks with their norms. `layer` matters only after lowering (layer 0 has rules of its own).
[[nodiscard]] PartCost attention_cost(const ModelSpec& spec, const AttentionSpec& attention,
                                      const WeightTypes& types);
[[nodiscard]] PartCost ffn_cost(const ModelSpec& spec, const FfnSpec& ffn, const WeightTypes& types);
// A block as the export target stores it (lowering.h); ExportTarget::kNative = as it is.
[[nodiscard]] PartCost block_cost(const ModelSpec& spec, std::int64_t layer, const BlockSpec& block,
                                  ExportTarget target, const WeightTypes& types);
// Embedding, final norm, head (once where tied).
[[nodiscard]] PartCost fixed_cost(const ModelSpec& spec, const WeightTypes& types);
// Everything of a model.
[[nodiscard]] PartCost model_cost(const ModelSpec& spec, ExportTarget target, const WeightTypes& types);

[[nodiscard]] std::int64_t attention_flops(const ModelSpec& spec, const AttentionSpec& attention,
                                           const FlopsQuery& query);
[[nodiscard]] std::int64_t ffn_flops(const ModelSpec& spec, const FfnSpec& ffn, const FlopsQuery& query);
[[nodiscard]] std::int64_t head_flops(const ModelSpec& spec, const FlopsQuery& query);
[[nodiscard]] std::int64_t model_flops(const ModelSpec& spec, const FlopsQuery& query);

}  // namespace puzzle
