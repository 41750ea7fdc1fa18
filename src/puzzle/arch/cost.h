// What variants cost, in exact integers. Tests compare with the bytes of really built
// models.
#pragma once

#include <cstdint>

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

// Numeric types of the stored weights and of the KV cache. Norms and biases are always F32 in GGUF
// and follow `matrix` in safetensors; `vector` says which.
struct WeightTypes {
  DType matrix = DType::kF32;
  DType embedding = DType::kF32;  // token embedding, and the head where it is not tied
  DType vector = DType::kF32;     // norms, biases
  DType kv = DType::kF16;         // KV cache
};

// The type a matrix with rows of this many elements is stored in: `wanted`, or another where the
// row does not fill whole blocks of it: as in llama.cpp's own quantiser Q5_0 in place of Q4_K and
// Q8_0 in place of Q6_K (rows of 576), and F16 where that does not fit either (ffn_down of width
// 1000). Exporters ask the same function.
[[nodiscard]] DType stored_dtype(DType wanted, std::int64_t row_length);

struct PartCost {
  std::int64_t parameters = 0;
  std::int64_t weight_bytes = 0;        // of tensors, without the file's padding between them
  std::int64_t kv_bytes_per_token = 0;  // per sequence

  PartCost& operator+=(const PartCost& other);
  bool operator==(const PartCost&) const = default;
};

// Sub-blocks with their norms, as they are. Throws Error(kUsage) if heads of the KV cache do not
// fill whole blocks of types.kv.
[[nodiscard]] PartCost attention_cost(const ModelSpec& spec, const AttentionSpec& attention,
                                      const WeightTypes& types);
[[nodiscard]] PartCost ffn_cost(const ModelSpec& spec, const FfnSpec& ffn,
                                const WeightTypes& types);
// The halves of a block that lower_block() described; nothing for a dropped one.
[[nodiscard]] PartCost lowered_attention_cost(const ModelSpec& spec, const LoweredBlock& lowered,
                                              const WeightTypes& types);
[[nodiscard]] PartCost lowered_ffn_cost(const ModelSpec& spec, const LoweredBlock& lowered,
                                        const WeightTypes& types);
// A block as the export target stores it (lowering.h). `layer` counts the layers kept before it: in
// deci the first one kept pays D² for missing attention, a linear FFN costs 3 D² + D; in openelm
// each missing attention costs one head and its KV cache. Throws Error(kUsage) for padded, where a
// block has no cost of its own.
[[nodiscard]] PartCost block_cost(const ModelSpec& spec, std::int64_t layer, const BlockSpec& block,
                                  ExportTarget target, const WeightTypes& types);
// Embedding, final norm, head (once where tied); in deci also the bytes of rope_freqs.weight, which
// is no parameter.
[[nodiscard]] PartCost fixed_cost(const ModelSpec& spec, const WeightTypes& types,
                                  ExportTarget target = ExportTarget::kNative);
// Everything of a model.
[[nodiscard]] PartCost model_cost(const ModelSpec& spec, ExportTarget target,
                                  const WeightTypes& types);
// Of the model as it stands, tied embeddings counted once.
[[nodiscard]] std::int64_t num_parameters(const ModelSpec& spec);

// Floating point operations (a multiply and an add count 2): matrix products, attention scores and
// values; norms, activations, rotations, biases and softmax are left out.
//
// With B sequences, T new tokens behind C cached ones, N = B T, and causal attention in which new
// token t (1-based) looks at C + t positions, so that a sequence has S = T C + T (T + 1) / 2 pairs:
// - gqa(k): 4 N D E (H + k) + 4 B S H E (q, o: 2·2NDHE; k, v: 2·2NDkE; scores, values: 2·2SHE)
// - swiglu(w): 6 N D w
// - linear: 2 N D²
// - head: 2 B M D V, with M positions whose logits are wanted
//
// A step of generation at context length c is {.new_tokens = 1, .cached_tokens = c}.
//
// All throw Error(kUsage) for counts that are negative or absurd (more than 2^32 sequences, 2^27
// tokens each) or a result beyond 2^63 - 1.
struct FlopsQuery {
  std::int64_t batch = 1;
  std::int64_t new_tokens = 1;            // per sequence
  std::int64_t cached_tokens = 0;         // per sequence, before the new ones
  std::int64_t logits_per_sequence = -1;  // -1 = every new token; 1 in prefill for generation
};

[[nodiscard]] std::int64_t attention_flops(const ModelSpec& spec, const AttentionSpec& attention,
                                           const FlopsQuery& query);
[[nodiscard]] std::int64_t ffn_flops(const ModelSpec& spec, const FfnSpec& ffn,
                                     const FlopsQuery& query);
[[nodiscard]] std::int64_t head_flops(const ModelSpec& spec, const FlopsQuery& query);
[[nodiscard]] std::int64_t model_flops(const ModelSpec& spec, const FlopsQuery& query);

}  // namespace puzzle
