#include "puzzle/model/weights.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"

namespace puzzle {
namespace {

// One list per struct serves the const and the mutable visit.
template <class Weights, class Visit>
void visit_attention(Weights& w, const Visit& visit) {
  visit("input_layernorm.weight", w.norm);
  visit("self_attn.q_proj.weight", w.q);
  visit("self_attn.k_proj.weight", w.k);
  visit("self_attn.v_proj.weight", w.v);
  visit("self_attn.o_proj.weight", w.o);
  visit("self_attn.q_proj.bias", w.q_bias);
  visit("self_attn.k_proj.bias", w.k_bias);
  visit("self_attn.v_proj.bias", w.v_bias);
  visit("self_attn.o_proj.bias", w.o_bias);
  visit("self_attn.q_norm.weight", w.q_norm);
  visit("self_attn.k_norm.weight", w.k_norm);
  visit("self_attn.linear_attn.weight", w.linear);
}

template <class Weights, class Visit>
void visit_ffn(Weights& w, const Visit& visit) {
  visit("post_attention_layernorm.weight", w.norm);
  visit("mlp.gate_proj.weight", w.gate);
  visit("mlp.up_proj.weight", w.up);
  visit("mlp.down_proj.weight", w.down);
  visit("mlp.gate_proj.bias", w.gate_bias);
  visit("mlp.up_proj.bias", w.up_bias);
  visit("mlp.down_proj.bias", w.down_bias);
  visit("mlp.linear_mlp.weight", w.linear);
}

template <class Visitor>
auto defined_only(const Visitor& visit) {
  return [&visit](const char* name, auto& tensor) {
    if (tensor.defined()) {
      visit(name, tensor);
    }
  };
}

template <class Weights, class Visitor>
void visit_model(Weights& weights, const Visitor& visit) {
  visit("model.embed_tokens.weight", weights.embedding);
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const std::string prefix = fmt::format("model.layers.{}.", i);
    visit_tensors(weights.layers[i], Visitor([&](const std::string& name, auto& tensor) {
                    visit(prefix + name, tensor);
                  }));
  }
  visit("model.norm.weight", weights.final_norm);
  if (!weights.spec.tie_embeddings) {
    visit("lm_head.weight", weights.head);
  }
}

template <class Weights>
Weights clone_tensors(const Weights& weights, bool requires_grad) {
  Weights copy = weights;
  visit_tensors(
      copy, TensorVisitor([&](const std::string&, at::Tensor& tensor) {
        tensor =
            tensor.detach().clone(at::MemoryFormat::Contiguous).set_requires_grad(requires_grad);
      }));
  return copy;
}

template <class Weights>
Weights tensors_on(const Weights& weights, const c10::Device& device) {
  Weights moved = weights;
  visit_tensors(moved, TensorVisitor([&](const std::string&, at::Tensor& tensor) {
                  tensor = tensor.to(device);
                }));
  return moved;
}

at::Tensor take(const TensorSource& source, const NamedShape& wanted) {
  at::Tensor tensor = source(wanted);
  PUZZLE_CHECK(tensor.defined() && tensor.sizes() == at::IntArrayRef(wanted.shape),
               "the source of {} gave another shape", wanted.name);
  return tensor;
}

template <class Weights, class Visit>
void fill(Weights& weights, const std::vector<NamedShape>& shapes, const TensorSource& source,
          const Visit& visit) {
  visit(weights, [&](const char* name, at::Tensor& tensor) {
    for (const NamedShape& wanted : shapes) {
      if (wanted.name == name) {
        tensor = take(source, wanted);
      }
    }
  });
}

}  // namespace

void visit_tensors(AttentionWeights& weights, const TensorVisitor& visit) {
  visit_attention(weights, defined_only(visit));
}
void visit_tensors(const AttentionWeights& weights, const ConstTensorVisitor& visit) {
  visit_attention(weights, defined_only(visit));
}
void visit_tensors(FfnWeights& weights, const TensorVisitor& visit) {
  visit_ffn(weights, defined_only(visit));
}
void visit_tensors(const FfnWeights& weights, const ConstTensorVisitor& visit) {
  visit_ffn(weights, defined_only(visit));
}
void visit_tensors(LayerWeights& weights, const TensorVisitor& visit) {
  visit_tensors(weights.attention, visit);
  visit_tensors(weights.ffn, visit);
}
void visit_tensors(const LayerWeights& weights, const ConstTensorVisitor& visit) {
  visit_tensors(weights.attention, visit);
  visit_tensors(weights.ffn, visit);
}
void visit_tensors(ModelWeights& weights, const TensorVisitor& visit) {
  visit_model(weights, visit);
}
void visit_tensors(const ModelWeights& weights, const ConstTensorVisitor& visit) {
  visit_model(weights, visit);
}

std::vector<NamedShape> attention_shapes(const ModelSpec& spec, const AttentionSpec& attention) {
  const std::int64_t hidden = spec.hidden_size;
  const std::int64_t q_rows = spec.num_heads * spec.head_dim;
  const std::int64_t kv_rows = attention.kv_heads * spec.head_dim;
  switch (attention.kind) {
    case AttentionKind::kNone:
      return {};
    case AttentionKind::kLinear:
      return {{"input_layernorm.weight", {hidden}},
              {"self_attn.linear_attn.weight", {hidden, hidden}}};
    case AttentionKind::kGqa:
      break;
  }
  std::vector<NamedShape> shapes = {{"input_layernorm.weight", {hidden}},
                                    {"self_attn.q_proj.weight", {q_rows, hidden}},
                                    {"self_attn.k_proj.weight", {kv_rows, hidden}},
                                    {"self_attn.v_proj.weight", {kv_rows, hidden}},
                                    {"self_attn.o_proj.weight", {hidden, q_rows}}};
  if (spec.attention_bias) {
    shapes.push_back({"self_attn.q_proj.bias", {q_rows}});
    shapes.push_back({"self_attn.k_proj.bias", {kv_rows}});
    shapes.push_back({"self_attn.v_proj.bias", {kv_rows}});
  }
  if (spec.attention_output_bias) {
    shapes.push_back({"self_attn.o_proj.bias", {hidden}});
  }
  if (spec.qk_norm) {
    shapes.push_back({"self_attn.q_norm.weight", {spec.head_dim}});
    shapes.push_back({"self_attn.k_norm.weight", {spec.head_dim}});
  }
  return shapes;
}

std::vector<NamedShape> ffn_shapes(const ModelSpec& spec, const FfnSpec& ffn) {
  const std::int64_t hidden = spec.hidden_size;
  switch (ffn.kind) {
    case FfnKind::kNone:
      return {};
    case FfnKind::kLinear:
      return {{"post_attention_layernorm.weight", {hidden}},
              {"mlp.linear_mlp.weight", {hidden, hidden}}};
    case FfnKind::kSwiglu:
      break;
  }
  std::vector<NamedShape> shapes = {{"post_attention_layernorm.weight", {hidden}},
                                    {"mlp.gate_proj.weight", {ffn.width, hidden}},
                                    {"mlp.up_proj.weight", {ffn.width, hidden}},
                                    {"mlp.down_proj.weight", {hidden, ffn.width}}};
  if (spec.mlp_bias) {
    shapes.push_back({"mlp.gate_proj.bias", {ffn.width}});
    shapes.push_back({"mlp.up_proj.bias", {ffn.width}});
    shapes.push_back({"mlp.down_proj.bias", {hidden}});
  }
  return shapes;
}

AttentionWeights make_attention(const ModelSpec& spec, const AttentionSpec& attention,
                                const TensorSource& source) {
  AttentionWeights weights;
  weights.spec = attention;
  fill(weights, attention_shapes(spec, attention), source,
       [](AttentionWeights& w, const auto& visit) { visit_attention(w, visit); });
  return weights;
}

FfnWeights make_ffn(const ModelSpec& spec, const FfnSpec& ffn, const TensorSource& source) {
  FfnWeights weights;
  weights.spec = ffn;
  fill(weights, ffn_shapes(spec, ffn), source,
       [](FfnWeights& w, const auto& visit) { visit_ffn(w, visit); });
  return weights;
}

const at::Tensor& output_matrix(const AttentionWeights& weights) {
  return weights.spec.kind == AttentionKind::kGqa ? weights.o : weights.linear;
}
const at::Tensor& output_matrix(const FfnWeights& weights) {
  return weights.spec.kind == FfnKind::kSwiglu ? weights.down : weights.linear;
}
void set_output_matrix(AttentionWeights& weights, at::Tensor matrix) {
  (weights.spec.kind == AttentionKind::kGqa ? weights.o : weights.linear) = std::move(matrix);
}
void set_output_matrix(FfnWeights& weights, at::Tensor matrix) {
  (weights.spec.kind == FfnKind::kSwiglu ? weights.down : weights.linear) = std::move(matrix);
}

AttentionWeights clone(const AttentionWeights& weights, bool requires_grad) {
  return clone_tensors(weights, requires_grad);
}
FfnWeights clone(const FfnWeights& weights, bool requires_grad) {
  return clone_tensors(weights, requires_grad);
}
LayerWeights clone(const LayerWeights& weights, bool requires_grad) {
  return clone_tensors(weights, requires_grad);
}

AttentionWeights on_device(const AttentionWeights& weights, const c10::Device& device) {
  return tensors_on(weights, device);
}
FfnWeights on_device(const FfnWeights& weights, const c10::Device& device) {
  return tensors_on(weights, device);
}

LayerWeights with_matrices_in(const LayerWeights& weights, c10::ScalarType type) {
  LayerWeights cast = weights;
  visit_tensors(cast, TensorVisitor([type](const std::string&, at::Tensor& tensor) {
                  tensor = tensor.to(type);
                }));
  cast.attention.norm = weights.attention.norm;
  cast.ffn.norm = weights.ffn.norm;
  return cast;
}

void move_to(ModelWeights& weights, const c10::Device& device, c10::ScalarType type) {
  visit_tensors(weights, TensorVisitor([&](const std::string&, at::Tensor& tensor) {
                  tensor = tensor.to(device, type);
                }));
  if (weights.spec.tie_embeddings) {
    weights.head = weights.embedding;
  }
}

ModelWeights random_model(const ModelSpec& spec, std::uint64_t seed) {
  check_model_spec(spec, "random model");
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto random = [&](const NamedShape& wanted) {
    at::Tensor tensor = at::randn(wanted.shape, generator, at::TensorOptions(at::kFloat));
    const bool is_norm = wanted.name.find("norm") != std::string::npos;
    if (is_norm) {
      return tensor.mul_(0.1).add_(1.0);
    }
    const bool is_matrix = wanted.shape.size() == 2;
    return tensor.mul_(is_matrix ? 1.0 / std::sqrt(static_cast<double>(wanted.shape[1])) : 0.1);
  };
  ModelWeights weights;
  weights.spec = spec;
  weights.embedding = random({"embed", {spec.vocab_size, spec.hidden_size}});
  for (const BlockSpec& block : spec.layers) {
    weights.layers.push_back(
        {make_attention(spec, block.attention, random), make_ffn(spec, block.ffn, random)});
  }
  weights.final_norm = random({"norm", {spec.hidden_size}});
  weights.head = spec.tie_embeddings ? weights.embedding
                                     : random({"head", {spec.vocab_size, spec.hidden_size}});
  return weights;
}

}  // namespace puzzle
