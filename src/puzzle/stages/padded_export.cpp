#include "puzzle/stages/padded_export.h"

#include <functional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "puzzle/arch/padded_model.h"
#include "puzzle/base/error.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/tensor/convert.h"

namespace puzzle {
namespace {

using TensorsByName = std::map<std::string, at::Tensor>;
using MakePadded = std::function<at::Tensor()>;

template <class Weights>
TensorsByName tensors_of(const Weights& weights) {
  TensorsByName tensors;
  visit_tensors(weights, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors[name] = tensor;
                }));
  return tensors;
}

at::Tensor constant(const std::vector<std::int64_t>& shape, double value) {
  return at::full(shape, value, at::TensorOptions(at::kFloat));
}

// The tensor in the leading corner of a larger one of zeros.
at::Tensor grown(const at::Tensor& tensor, const std::vector<std::int64_t>& shape) {
  if (tensor.sizes() == at::IntArrayRef(shape)) {
    return tensor;
  }
  at::Tensor larger = at::zeros(shape, tensor.options());
  at::Tensor corner = larger;
  for (std::int64_t axis = 0; axis < tensor.dim(); ++axis) {
    corner = corner.narrow(axis, 0, tensor.size(axis));
  }
  corner.copy_(tensor);
  return larger;
}

// docs/formats.md: head j of K is the old head j / (K / k). [k·E, …] -> [K·E, …]
at::Tensor repeated_heads(const at::Tensor& tensor, std::int64_t head_dim, std::int64_t rows) {
  std::vector<std::int64_t> heads = tensor.sizes().vec();
  heads[0] /= head_dim;
  heads.insert(heads.begin() + 1, head_dim);
  std::vector<std::int64_t> shape = tensor.sizes().vec();
  shape[0] = rows;
  return tensor.reshape(heads).repeat_interleave(rows / tensor.size(0), 0).reshape(shape);
}

bool is_norm(const std::string& name) { return name.find("norm") != std::string::npos; }

bool is_of_kv_heads(const std::string& name) {
  return name.starts_with("self_attn.k_proj.") || name.starts_with("self_attn.v_proj.");
}

// One layer of the file after another, from one or both halves of the child's layers.
class PaddedWriter {
 public:
  PaddedWriter(const ModelSpec& plain, c10::ScalarType type) : plain_(plain), type_(type) {}

  void add(std::string name, std::vector<std::int64_t> shape, MakePadded make) {
    TensorToWrite entry;
    entry.name = std::move(name);
    entry.dtype = dtype_of(type_);
    entry.produce = [make = std::move(make), shape, type = type_](const ByteSink& sink) {
      const at::Tensor tensor = make().detach();
      PUZZLE_CHECK(tensor.sizes() == at::IntArrayRef(shape), "a padded tensor of another shape");
      sink(tensor_bytes(tensor.to(at::kCPU, type).contiguous()));
    };
    entry.shape = std::move(shape);
    tensors_.push_back(std::move(entry));
  }

  void add_layer(const LayerWeights& layer, const LoweredBlock& lowered) {
    const AttentionSpec& attention = plain_.layers.front().attention;
    const FfnSpec& ffn = plain_.layers.front().ffn;
    if (lowered.linear_attention_as_ffn) {
      const AttentionWeights& w = layer.attention;
      add_zero(attention_shapes(plain_, attention));
      add_linear_as_ffn(ffn_shapes(plain_, ffn), w.norm, w.linear);
      ++layer_;
      if (!lowered.inserted_layer) {
        return;
      }
    }
    if (lowered.zero_attention) {
      add_zero(attention_shapes(plain_, attention));
    } else {
      add_attention(attention_shapes(plain_, attention), tensors_of(layer.attention));
    }
    if (lowered.zero_ffn) {
      add_zero(ffn_shapes(plain_, ffn));
    } else if (lowered.linear_ffn_as_swiglu) {
      add_linear_as_ffn(ffn_shapes(plain_, ffn), layer.ffn.norm, layer.ffn.linear);
    } else {
      add_ffn(ffn_shapes(plain_, ffn), tensors_of(layer.ffn));
    }
    ++layer_;
  }

  void write(const std::filesystem::path& file,
             const std::map<std::string, std::string>& metadata) && {
    PUZZLE_CHECK(layer_ == plain_.num_layers(), "{} layers padded, expected {}", layer_,
                 plain_.num_layers());
    write_safetensors(file, std::move(tensors_), metadata);
  }

 private:
  void add_in_layer(const NamedShape& wanted, MakePadded make) {
    add(fmt::format("model.layers.{}.{}", layer_, wanted.name), wanted.shape, std::move(make));
  }

  void add_constant(const NamedShape& wanted, double value) {
    add_in_layer(wanted, [shape = wanted.shape, value] { return constant(shape, value); });
  }

  void add_zero(const std::vector<NamedShape>& shapes) {
    for (const NamedShape& wanted : shapes) {
      add_constant(wanted, is_norm(wanted.name) ? 1.0 : 0.0);
    }
  }

  void add_attention(const std::vector<NamedShape>& shapes, const TensorsByName& held) {
    for (const NamedShape& wanted : shapes) {
      const auto found = held.find(wanted.name);
      if (found == held.end()) {
        add_constant(wanted, 0.0);  // a bias that only the class asks for
      } else if (is_of_kv_heads(wanted.name)) {
        add_in_layer(wanted,
                     [tensor = found->second, head_dim = plain_.head_dim, rows = wanted.shape[0]] {
                       return repeated_heads(tensor, head_dim, rows);
                     });
      } else {
        add_in_layer(wanted, [tensor = found->second] { return tensor; });
      }
    }
  }

  void add_ffn(const std::vector<NamedShape>& shapes, const TensorsByName& held) {
    for (const NamedShape& wanted : shapes) {
      const auto found = held.find(wanted.name);
      if (found == held.end()) {
        add_constant(wanted, 0.0);
      } else {
        add_in_layer(wanted, [tensor = found->second, shape = wanted.shape] {
          return grown(tensor, shape);
        });
      }
    }
  }

  // docs/formats.md, see LinearFfnForm.
  void add_linear_as_ffn(const std::vector<NamedShape>& shapes, const at::Tensor& norm,
                         const at::Tensor& matrix) {
    const LinearFfnForm form = linear_ffn_form(dtype_of(type_));
    for (const NamedShape& wanted : shapes) {
      if (is_norm(wanted.name)) {
        add_in_layer(wanted, [norm] { return norm; });
      } else if (wanted.name == "mlp.gate_proj.bias") {
        add_constant(wanted, form.gate_bias);
      } else if (wanted.name == "mlp.up_proj.weight") {
        add_in_layer(wanted, [matrix, shape = wanted.shape] { return grown(matrix, shape); });
      } else if (wanted.name == "mlp.down_proj.weight") {
        add_in_layer(wanted, [form, shape = wanted.shape] {
          return at::eye(shape[0], shape[1], at::TensorOptions(at::kFloat)) * form.down_diagonal;
        });
      } else {
        add_constant(wanted, 0.0);
      }
    }
  }

  const ModelSpec& plain_;
  c10::ScalarType type_;
  std::int64_t layer_ = 0;
  std::vector<TensorToWrite> tensors_;
};

}  // namespace

void write_padded_weights(const std::filesystem::path& file, const ModelWeights& child,
                          c10::ScalarType type,
                          const std::map<std::string, std::string>& metadata) {
  const c10::NoGradGuard no_grad;
  if (const auto reason = refusal(ExportTarget::kPadded, child.spec)) {
    fail(ErrorKind::kUsage, "padded export: {}", *reason);
  }
  const std::vector<LoweredBlock> lowered = lower_model(ExportTarget::kPadded, child.spec);
  const ModelSpec plain = padded_spec(child.spec);
  PaddedWriter writer(plain, type);
  const std::vector<std::int64_t> table = {plain.vocab_size, plain.hidden_size};
  writer.add("model.embed_tokens.weight", table, [&child] { return child.embedding; });
  writer.add("model.norm.weight", {plain.hidden_size}, [&child] { return child.final_norm; });
  if (!plain.tie_embeddings) {
    writer.add("lm_head.weight", table, [&child] { return child.head; });
  }
  for (std::size_t i = 0; i < lowered.size(); ++i) {
    if (!lowered[i].dropped) {
      writer.add_layer(child.layers[i], lowered[i]);
    }
  }
  std::move(writer).write(file, metadata);
}

}  // namespace puzzle
