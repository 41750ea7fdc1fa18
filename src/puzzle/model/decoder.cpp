#include "puzzle/model/decoder.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/model/rope.h"

namespace puzzle {
namespace {

at::Tensor split_rows(const at::Tensor& x, std::int64_t head_dim) {
  return x.view({x.size(0), x.size(1), -1, head_dim});
}

// Queries or keys as attention compares them; `norm` [E] is undefined where the model has none.
at::Tensor rotated_heads(const at::Tensor& x, const at::Tensor& norm, const Geometry& geometry,
                         const PassContext& pass) {
  at::Tensor rows_BTHE = split_rows(x, geometry.head_dim);
  if (norm.defined()) {
    rows_BTHE = rms_norm(rows_BTHE, norm, geometry.rms_norm_eps);
  }
  return apply_rotary(rows_BTHE.transpose(1, 2), pass.angles);
}

// In the weight's type, which is not that of x in mixed precision (with_matrices_in).
at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor typed = x.to(weight.scalar_type());
  return bias.defined() ? at::linear(typed, weight, bias) : at::linear(typed, weight);
}

}  // namespace

Geometry::Geometry(const ModelSpec& spec)
    : num_heads(spec.num_heads), head_dim(spec.head_dim), rms_norm_eps(spec.rms_norm_eps) {
  const RopeFrequencies frequencies = rope_frequencies(spec.rope, spec.head_dim);
  attention_factor = frequencies.attention_factor;
  inverse_frequencies =
      at::tensor(frequencies.inverse_frequencies, at::TensorOptions().dtype(at::kDouble));
}

PassContext make_pass(const Geometry& geometry, std::int64_t num_tokens, c10::ScalarType type,
                      const c10::Device& device, std::int64_t start) {
  const at::Tensor positions =
      at::arange(start, start + num_tokens, at::TensorOptions().dtype(at::kLong));
  return make_pass(geometry, positions, at::Tensor(), type, device);
}

PassContext make_pass(const Geometry& geometry, const at::Tensor& positions, const at::Tensor& mask,
                      c10::ScalarType type, const c10::Device& device) {
  return {make_rotary_angles(geometry.inverse_frequencies, geometry.attention_factor, positions,
                             type, device),
          mask.defined() ? mask.to(device) : mask};
}

at::Tensor attention_features(const AttentionWeights& weights, const Geometry& geometry,
                              const at::Tensor& xn_BTD, const PassContext& pass, LayerCache* cache,
                              std::int64_t cache_length) {
  PUZZLE_CHECK(weights.spec.kind != AttentionKind::kNone, "'none' has no features");
  if (weights.spec.kind == AttentionKind::kLinear) {
    return xn_BTD;
  }
  const at::Tensor typed = xn_BTD.to(weights.q.scalar_type());
  const at::Tensor q =
      rotated_heads(dense(typed, weights.q, weights.q_bias), weights.q_norm, geometry, pass);
  at::Tensor k =
      rotated_heads(dense(typed, weights.k, weights.k_bias), weights.k_norm, geometry, pass);
  at::Tensor v =
      split_rows(dense(typed, weights.v, weights.v_bias), geometry.head_dim).transpose(1, 2);
  if (cache != nullptr) {
    const std::int64_t new_tokens = xn_BTD.size(1);
    cache->keys.narrow(2, cache_length, new_tokens).copy_(k);
    cache->values.narrow(2, cache_length, new_tokens).copy_(v);
    if (cache_length > 0) {
      k = cache->keys.narrow(2, 0, cache_length + new_tokens);
      v = cache->values.narrow(2, 0, cache_length + new_tokens);
    }
  }
  const at::Tensor mixed = attention(q, k, v, pass.mask);
  return mixed.transpose(1, 2).reshape({xn_BTD.size(0), xn_BTD.size(1), -1});
}

at::Tensor ffn_features(const FfnWeights& weights, const at::Tensor& xn) {
  PUZZLE_CHECK(weights.spec.kind != FfnKind::kNone, "'none' has no features");
  if (weights.spec.kind == FfnKind::kLinear) {
    return xn;
  }
  const at::Tensor typed = xn.to(weights.gate.scalar_type());
  return swiglu(dense(typed, weights.gate, weights.gate_bias),
                dense(typed, weights.up, weights.up_bias));
}

at::Tensor attention_output(const AttentionWeights& weights, const at::Tensor& features) {
  return dense(features, output_matrix(weights), weights.o_bias);
}

at::Tensor ffn_output(const FfnWeights& weights, const at::Tensor& features) {
  return dense(features, output_matrix(weights), weights.down_bias);
}

at::Tensor attention_input(const AttentionWeights& weights, const Geometry& geometry,
                           const at::Tensor& x_BTD) {
  return weights.norm.defined() ? rms_norm(x_BTD, weights.norm, geometry.rms_norm_eps)
                                : at::Tensor();
}

at::Tensor ffn_input(const FfnWeights& weights, const Geometry& geometry, const at::Tensor& x_BTD) {
  return weights.norm.defined() ? rms_norm(x_BTD, weights.norm, geometry.rms_norm_eps)
                                : at::Tensor();
}

at::Tensor apply_attention(const AttentionWeights& weights, const Geometry& geometry,
                           const at::Tensor& x_BTD, const PassContext& pass, LayerCache* cache,
                           std::int64_t cache_length) {
  if (weights.spec.kind == AttentionKind::kNone) {
    return x_BTD;
  }
  const at::Tensor features = attention_features(
      weights, geometry, attention_input(weights, geometry, x_BTD), pass, cache, cache_length);
  return x_BTD + attention_output(weights, features);
}

at::Tensor apply_ffn(const FfnWeights& weights, const Geometry& geometry, const at::Tensor& x_BTD) {
  if (weights.spec.kind == FfnKind::kNone) {
    return x_BTD;
  }
  return x_BTD + ffn_output(weights, ffn_features(weights, ffn_input(weights, geometry, x_BTD)));
}

at::Tensor apply_layer(const LayerWeights& weights, const Geometry& geometry,
                       const at::Tensor& x_BTD, const PassContext& pass) {
  return apply_ffn(weights.ffn, geometry,
                   apply_attention(weights.attention, geometry, x_BTD, pass));
}

at::Tensor embed(const ModelWeights& model, const at::Tensor& tokens_BT) {
  return at::embedding(model.embedding, tokens_BT.to(model.embedding.device(), at::kLong));
}

at::Tensor apply_layers(const ModelWeights& model, const Geometry& geometry, at::Tensor x_BTD,
                        const PassContext& pass, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) {
    x_BTD = apply_layer(model.layers[static_cast<std::size_t>(i)], geometry, x_BTD, pass);
  }
  return x_BTD;
}

at::Tensor final_hidden(const ModelWeights& model, const at::Tensor& x_BTD) {
  return rms_norm(x_BTD, model.final_norm, model.spec.rms_norm_eps);
}

at::Tensor forward_hidden(const ModelWeights& model, const Geometry& geometry,
                          const at::Tensor& tokens_BT) {
  const at::Tensor x = embed(model, tokens_BT);
  const PassContext pass = make_pass(geometry, tokens_BT.size(1), x.scalar_type(), x.device());
  return final_hidden(model, apply_layers(model, geometry, x, pass, 0, model.spec.num_layers()));
}

at::Tensor forward_logits(const ModelWeights& model, const Geometry& geometry,
                          const at::Tensor& tokens_BT) {
  return at::linear(forward_hidden(model, geometry, tokens_BT), model.head);
}

DecodeState::DecodeState(const ModelWeights& model, const Geometry& geometry, std::int64_t batch,
                         std::int64_t capacity)
    : model_(model), geometry_(geometry), capacity_(capacity) {
  for (const LayerWeights& layer : model.layers) {
    LayerCache cache;
    if (layer.attention.spec.kind == AttentionKind::kGqa) {
      const std::vector<std::int64_t> shape = {batch, layer.attention.spec.kv_heads, capacity,
                                               geometry.head_dim};
      cache.keys = at::zeros(shape, model.embedding.options());
      cache.values = at::zeros(shape, model.embedding.options());
    }
    caches_.push_back(std::move(cache));
  }
}

at::Tensor DecodeState::append(const at::Tensor& tokens_BT) {
  const c10::NoGradGuard no_grad;
  const std::int64_t new_tokens = tokens_BT.size(1);
  if (length_ + new_tokens > capacity_) {
    fail(ErrorKind::kUsage, "generation: {} tokens do not fit a cache of {}", length_ + new_tokens,
         capacity_);
  }
  at::Tensor x = embed(model_, tokens_BT);
  PassContext pass = make_pass(geometry_, new_tokens, x.scalar_type(), x.device(), length_);
  if (length_ > 0 && new_tokens > 1) {
    pass.mask =
        at::ones({new_tokens, length_ + new_tokens}, x.options().dtype(at::kBool)).tril(length_);
  }
  for (std::size_t i = 0; i < model_.layers.size(); ++i) {
    const LayerWeights& layer = model_.layers[i];
    x = apply_attention(layer.attention, geometry_, x, pass, &caches_[i], length_);
    x = apply_ffn(layer.ffn, geometry_, x);
  }
  length_ += new_tokens;
  return at::linear(final_hidden(model_, x.narrow(1, new_tokens - 1, 1)), model_.head).squeeze(1);
}

std::int64_t DecodeState::cache_bytes() const {
  std::int64_t bytes = 0;
  for (const LayerCache& cache : caches_) {
    if (cache.keys.defined()) {
      bytes += static_cast<std::int64_t>(cache.keys.nbytes() + cache.values.nbytes());
    }
  }
  return bytes;
}

}  // namespace puzzle
