#include "puzzle/stages/layer_half.h"

#include <utility>

namespace puzzle {

const char* half_name(Half half) { return half == Half::kAttention ? "attention" : "ffn"; }

bool is_none(const LayerWeights& layer, Half half) {
  return half == Half::kAttention ? layer.attention.spec.kind == AttentionKind::kNone
                                  : layer.ffn.spec.kind == FfnKind::kNone;
}

at::Tensor apply_half(const LayerWeights& layer, Half half, const Geometry& geometry,
                      const at::Tensor& x, const PassContext& pass) {
  return half == Half::kAttention ? apply_attention(layer.attention, geometry, x, pass)
                                  : apply_ffn(layer.ffn, geometry, x);
}

at::Tensor half_input(const LayerWeights& layer, Half half, const Geometry& geometry,
                      const at::Tensor& x) {
  return half == Half::kAttention ? attention_input(layer.attention, geometry, x)
                                  : ffn_input(layer.ffn, geometry, x);
}

at::Tensor half_features(const LayerWeights& layer, Half half, const Geometry& geometry,
                         const at::Tensor& x, const PassContext& pass) {
  const at::Tensor xn = half_input(layer, half, geometry, x);
  return half == Half::kAttention ? attention_features(layer.attention, geometry, xn, pass)
                                  : ffn_features(layer.ffn, xn);
}

at::Tensor half_output(const LayerWeights& layer, Half half, const at::Tensor& features) {
  return half == Half::kAttention ? attention_output(layer.attention, features)
                                  : ffn_output(layer.ffn, features);
}

const at::Tensor& half_matrix(const LayerWeights& layer, Half half) {
  return half == Half::kAttention ? output_matrix(layer.attention) : output_matrix(layer.ffn);
}

const at::Tensor& half_bias(const LayerWeights& layer, Half half) {
  return half == Half::kAttention ? layer.attention.o_bias : layer.ffn.down_bias;
}

void set_half_matrix(LayerWeights& layer, Half half, at::Tensor matrix) {
  if (half == Half::kAttention) {
    set_output_matrix(layer.attention, std::move(matrix));
  } else {
    set_output_matrix(layer.ffn, std::move(matrix));
  }
}

void visit_input_matrices(LayerWeights& layer, Half half,
                          const std::function<void(at::Tensor& matrix)>& visit) {
  if (half == Half::kAttention && layer.attention.spec.kind == AttentionKind::kGqa) {
    visit(layer.attention.q);
    visit(layer.attention.k);
    visit(layer.attention.v);
  } else if (half == Half::kFfn && layer.ffn.spec.kind == FfnKind::kSwiglu) {
    visit(layer.ffn.gate);
    visit(layer.ffn.up);
  }
}

}  // namespace puzzle
