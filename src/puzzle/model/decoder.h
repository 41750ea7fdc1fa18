// The native decoder: one code path for training, scoring, prefill and cached generation, for any
// architecture of the search space.
//
//   h = embedding[token]
//   per layer   h += attention(norm(h))   unless the attention is "none"
//               h += ffn(norm(h))         unless the FFN is "none"
//   logits = head · final_norm(h)
//
// Shape letters: B sequences, T new tokens, S cached + new tokens, D hidden, H query heads, K KV
// heads, E head width, F FFN width, V vocabulary. Functions are pure; gradients flow where inputs
// ask for them.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/model/weights.h"
#include "puzzle/tensor/ops.h"

namespace puzzle {

// What every attention of a model shares.
struct Geometry {
  explicit Geometry(const ModelSpec& spec);

  std::int64_t num_heads;
  std::int64_t head_dim;
  double rms_norm_eps;
  double attention_factor;         // of yarn; 1 otherwise
  at::Tensor inverse_frequencies;  // [E/2] fp64, CPU
};

// What every layer of one forward pass shares. Undefined mask = plain causal attention.
struct PassContext {
  RotaryAngles angles;
  at::Tensor mask;  // bool, broadcastable to [B, 1, T, S]; true = may look
};

// Positions start, start + 1, … for T tokens, on `device` in `type`, that of the matrices.
[[nodiscard]] PassContext make_pass(const Geometry& geometry, std::int64_t num_tokens,
                                    c10::ScalarType type, const c10::Device& device,
                                    std::int64_t start = 0);
// The same with a mask, e.g. for document boundaries or ragged prompts; positions int64 [T] or [B,
// T].
[[nodiscard]] PassContext make_pass(const Geometry& geometry, const at::Tensor& positions,
                                    const at::Tensor& mask, c10::ScalarType type,
                                    const c10::Device& device);

// Keys (rotated) and values of one layer, [B, K, capacity, E]; undefined in layers without GQA.
struct LayerCache {
  at::Tensor keys;
  at::Tensor values;
};

// The input of a sub-block's output matrix: φ(xn) of weights.h. xn is the normalised input.
// GQA: concatenated head outputs [B, T, H·E]; swiglu: intermediate activations [.., F]; linear: xn.
// With a cache, new keys and values are written at `cache_length` and attention sees all before.
[[nodiscard]] at::Tensor attention_features(const AttentionWeights& weights,
                                            const Geometry& geometry, const at::Tensor& xn_BTD,
                                            const PassContext& pass, LayerCache* cache = nullptr,
                                            std::int64_t cache_length = 0);
[[nodiscard]] at::Tensor ffn_features(const FfnWeights& weights, const at::Tensor& xn);

// output · features (+ bias).
[[nodiscard]] at::Tensor attention_output(const AttentionWeights& weights,
                                          const at::Tensor& features);
[[nodiscard]] at::Tensor ffn_output(const FfnWeights& weights, const at::Tensor& features);

// The normalised input of a sub-block; undefined for "none".
[[nodiscard]] at::Tensor attention_input(const AttentionWeights& weights, const Geometry& geometry,
                                         const at::Tensor& x_BTD);
[[nodiscard]] at::Tensor ffn_input(const FfnWeights& weights, const Geometry& geometry,
                                   const at::Tensor& x_BTD);

// x + sub-block(x).
[[nodiscard]] at::Tensor apply_attention(const AttentionWeights& weights, const Geometry& geometry,
                                         const at::Tensor& x_BTD, const PassContext& pass,
                                         LayerCache* cache = nullptr,
                                         std::int64_t cache_length = 0);
[[nodiscard]] at::Tensor apply_ffn(const FfnWeights& weights, const Geometry& geometry,
                                   const at::Tensor& x_BTD);
[[nodiscard]] at::Tensor apply_layer(const LayerWeights& weights, const Geometry& geometry,
                                     const at::Tensor& x_BTD, const PassContext& pass);

// tokens int64 [B, T] -> [B, T, D].
[[nodiscard]] at::Tensor embed(const ModelWeights& model, const at::Tensor& tokens_BT);

// Hidden states after layers [first, last) of those entering `first`.
[[nodiscard]] at::Tensor apply_layers(const ModelWeights& model, const Geometry& geometry,
                                      at::Tensor x_BTD, const PassContext& pass, std::int64_t first,
                                      std::int64_t last);

// After the final norm: what head_loss.h calls hidden.
[[nodiscard]] at::Tensor final_hidden(const ModelWeights& model, const at::Tensor& x_BTD);

// Whole pass; [B, T, D] after the final norm, and [B, T, V] logits (for small inputs and tests
// only).
[[nodiscard]] at::Tensor forward_hidden(const ModelWeights& model, const Geometry& geometry,
                                        const at::Tensor& tokens_BT);
[[nodiscard]] at::Tensor forward_logits(const ModelWeights& model, const Geometry& geometry,
                                        const at::Tensor& tokens_BT);

// Cached generation state of a batch of equally long sequences.
class DecodeState {
 public:
  DecodeState(const ModelWeights& model, const Geometry& geometry, std::int64_t batch,
              std::int64_t capacity);

  // Appends tokens [B, T] and returns logits [B, V] of the last position.
  [[nodiscard]] at::Tensor append(const at::Tensor& tokens_BT);
  [[nodiscard]] std::int64_t length() const { return length_; }
  [[nodiscard]] std::int64_t cache_bytes() const;

 private:
  const ModelWeights& model_;
  const Geometry& geometry_;
  std::int64_t capacity_;
  std::int64_t length_ = 0;
  std::vector<LayerCache> caches_;
};

}  // namespace puzzle
