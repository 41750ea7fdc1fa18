// The tensors of a model: plain structs, complete when built, const afterwards by convention.
//
// Shape letters: D hidden, H query heads, K KV heads, E head width, F FFN width, V vocabulary.
// Names are those of Hugging Face's Llama (docs/formats.md). A tensor that a kind does not have is
// undefined.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

struct AttentionWeights {
  AttentionSpec spec;
  at::Tensor norm;                            // [D]
  at::Tensor q, k, v;                         // [H·E, D], [K·E, D], [K·E, D]
  at::Tensor o;                               // [D, H·E]
  at::Tensor q_bias, k_bias, v_bias, o_bias;  // undefined where the model has none
  at::Tensor q_norm, k_norm;                  // [E], one for all heads; undefined likewise
  at::Tensor linear;                          // [D, D]
};

struct FfnWeights {
  FfnSpec spec;
  at::Tensor norm;                           // [D]
  at::Tensor gate, up;                       // [F, D]
  at::Tensor down;                           // [D, F]
  at::Tensor gate_bias, up_bias, down_bias;  // undefined where the model has none
  at::Tensor linear;                         // [D, D]
};

struct LayerWeights {
  AttentionWeights attention;
  FfnWeights ffn;

  [[nodiscard]] BlockSpec spec() const { return {attention.spec, ffn.spec}; }
};

// Called with the name below the sub-block ("self_attn.q_proj.weight") and the tensor itself, for
// every tensor that is defined; the visitor may replace it.
using TensorVisitor = std::function<void(const std::string& name, at::Tensor& tensor)>;
using ConstTensorVisitor = std::function<void(const std::string& name, const at::Tensor& tensor)>;

void visit_tensors(AttentionWeights& weights, const TensorVisitor& visit);
void visit_tensors(const AttentionWeights& weights, const ConstTensorVisitor& visit);
void visit_tensors(FfnWeights& weights, const TensorVisitor& visit);
void visit_tensors(const FfnWeights& weights, const ConstTensorVisitor& visit);
void visit_tensors(LayerWeights& weights, const TensorVisitor& visit);
void visit_tensors(const LayerWeights& weights, const ConstTensorVisitor& visit);

// Name and shape of every tensor that a sub-block of this kind has in a model of this geometry.
struct NamedShape {
  std::string name;
  std::vector<std::int64_t> shape;
};
[[nodiscard]] std::vector<NamedShape> attention_shapes(const ModelSpec& spec,
                                                       const AttentionSpec& attention);
[[nodiscard]] std::vector<NamedShape> ffn_shapes(const ModelSpec& spec, const FfnSpec& ffn);

// Builds a sub-block from a source of tensors by name; the source must give the shape asked for.
using TensorSource = std::function<at::Tensor(const NamedShape& wanted)>;
[[nodiscard]] AttentionWeights make_attention(const ModelSpec& spec, const AttentionSpec& attention,
                                              const TensorSource& source);
[[nodiscard]] FfnWeights make_ffn(const ModelSpec& spec, const FfnSpec& ffn,
                                  const TensorSource& source);

// The matrix that writes into the residual stream (o, down or linear) and its bias. Every sub-block
// is output · φ(norm(x)) (+ bias), with φ in decoder.h. Undefined for "none".
[[nodiscard]] const at::Tensor& output_matrix(const AttentionWeights& weights);
[[nodiscard]] const at::Tensor& output_matrix(const FfnWeights& weights);
void set_output_matrix(AttentionWeights& weights, at::Tensor matrix);
void set_output_matrix(FfnWeights& weights, at::Tensor matrix);

// Deep copies, detached, with requires_grad set as asked: what training works on.
[[nodiscard]] AttentionWeights clone(const AttentionWeights& weights, bool requires_grad);
[[nodiscard]] FfnWeights clone(const FfnWeights& weights, bool requires_grad);
[[nodiscard]] LayerWeights clone(const LayerWeights& weights, bool requires_grad);

// The same weights on `device`: themselves where they are there already.
[[nodiscard]] AttentionWeights on_device(const AttentionWeights& weights,
                                         const c10::Device& device);
[[nodiscard]] FfnWeights on_device(const FfnWeights& weights, const c10::Device& device);

// The same layer with matrices, biases and the norms of q and k in `type` and the norms of the
// residual stream as they are: mixed precision, in which decoder.h keeps that stream in the norms'
// type. Gradients go through the casts to the tensors they were made from.
[[nodiscard]] LayerWeights with_matrices_in(const LayerWeights& weights, c10::ScalarType type);

struct ModelWeights {
  ModelSpec spec;
  at::Tensor embedding;   // [V, D]
  at::Tensor final_norm;  // [D]
  at::Tensor head;        // [V, D]; the embedding itself where tied
  std::vector<LayerWeights> layers;
};

// Full names ("model.layers.3.mlp.up_proj.weight", "lm_head.weight" only where not tied).
void visit_tensors(ModelWeights& weights, const TensorVisitor& visit);
void visit_tensors(const ModelWeights& weights, const ConstTensorVisitor& visit);

// Moves every tensor, keeping a tied head tied.
void move_to(ModelWeights& weights, const c10::Device& device, c10::ScalarType type);

// Seeded random weights of a test model's size: matrices of standard deviation 1/√inputs, biases of
// 0.1, norms near 1.
[[nodiscard]] ModelWeights random_model(const ModelSpec& spec, std::uint64_t seed);

}  // namespace puzzle
