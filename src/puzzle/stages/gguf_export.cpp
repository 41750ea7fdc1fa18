#include "puzzle/stages/gguf_export.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "puzzle/arch/gguf_config.h"
#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_quant.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/text/tokenizer_files.h"

namespace puzzle {
namespace {

constexpr std::int64_t kQuantRowsAtATime = 256;
constexpr std::int64_t kQuantRowsPerPiece = 8;

using MakeTensor = std::function<at::Tensor()>;

// Rows are encoded in all threads: the types with a search take microseconds a block.
void write_rows(DType dtype, const at::Tensor& rows, const ByteSink& sink) {
  const std::int64_t pieces = (rows.size(0) + kQuantRowsPerPiece - 1) / kQuantRowsPerPiece;
  std::vector<std::vector<std::byte>> encoded(static_cast<std::size_t>(pieces));
  at::parallel_for(0, pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t first = piece * kQuantRowsPerPiece;
      const std::int64_t count = std::min(kQuantRowsPerPiece, rows.size(0) - first);
      const float* values = rows.const_data_ptr<float>() + first * rows.size(1);
      quantize(dtype, {values, static_cast<std::size_t>(count * rows.size(1))}, rows.size(1),
               encoded[static_cast<std::size_t>(piece)]);
    }
  });
  for (const std::vector<std::byte>& bytes : encoded) {
    sink(bytes);
  }
}

// Hands a tensor to the file in its stored type, some rows at a time. It is made when its turn
// comes, so that only one of those that are made for the file is there at a time.
void add_gguf_tensor(GgufWriter& writer, const std::string& name, std::vector<std::int64_t> shape,
                     DType wanted, MakeTensor make) {
  TensorToWrite entry;
  entry.name = name;
  const std::int64_t row_length = shape.back();
  entry.dtype = shape.size() < 2 ? DType::kF32 : stored_dtype(wanted, row_length);
  entry.shape = std::move(shape);
  entry.produce = [make = std::move(make), row_length, dtype = entry.dtype](const ByteSink& sink) {
    const at::Tensor rows = make().detach().reshape({-1, row_length});
    for (std::int64_t first = 0; first < rows.size(0); first += kQuantRowsAtATime) {
      const std::int64_t count = std::min(kQuantRowsAtATime, rows.size(0) - first);
      write_rows(dtype, rows.narrow(0, first, count).to(at::kCPU, at::kFloat).contiguous(), sink);
    }
  };
  writer.add_tensor(std::move(entry));
}

void add_gguf_tensor(GgufWriter& writer, const std::string& name, const at::Tensor& tensor,
                     DType wanted) {
  add_gguf_tensor(writer, name, tensor.sizes().vec(), wanted, [tensor] { return tensor; });
}

class LayerWriter {
 public:
  LayerWriter(GgufWriter& writer, const ModelSpec& spec, const GgufExport& options,
              std::int64_t index)
      : writer_(writer),
        spec_(spec),
        target_(options.target),
        types_(options.types),
        prefix_(fmt::format("blk.{}.", index)) {}

  void write_attention(const AttentionWeights& w, const LoweredBlock& lowered) const {
    if (lowered.one_zero_head) {
      write_zero_head();
      return;
    }
    if (lowered.zero_attention) {
      add_constant("attn_norm.weight", {spec_.hidden_size}, 1.0);
      add_constant("attn_output.weight", {spec_.hidden_size, spec_.hidden_size}, 0.0);
      return;
    }
    if (w.spec.kind == AttentionKind::kNone) {
      return;
    }
    add("attn_norm.weight", w.norm);
    if (w.spec.kind == AttentionKind::kLinear) {
      add("attn_output.weight", w.linear);
      return;
    }
    if (target_ == ExportTarget::kOpenElm) {
      write_fused_attention(w);
      return;
    }
    add_interleaved("attn_q.weight", w.q);
    add_interleaved("attn_k.weight", w.k);
    add("attn_v.weight", w.v);
    add("attn_output.weight", w.o);
    if (w.q_bias.defined()) {
      add_interleaved("attn_q.bias", w.q_bias);
      add_interleaved("attn_k.bias", w.k_bias);
      add("attn_v.bias", w.v_bias);
    }
    if (w.o_bias.defined()) {
      add("attn_output.bias", w.o_bias);
    }
  }

  void write_ffn(const FfnWeights& w, const LoweredBlock& lowered) const {
    if (lowered.zero_ffn) {
      write_zero_ffn(lowered.ffn.width);
    } else if (lowered.linear_ffn_as_swiglu) {
      write_linear_ffn(w);
    } else if (w.spec.kind == FfnKind::kSwiglu) {
      add("ffn_norm.weight", w.norm);
      add("ffn_gate.weight", w.gate);
      add("ffn_up.weight", w.up);
      add("ffn_down.weight", w.down);
      if (w.gate_bias.defined()) {
        add("ffn_gate.bias", w.gate_bias);
        add("ffn_up.bias", w.up_bias);
        add("ffn_down.bias", w.down_bias);
      }
    }
  }

 private:
  void write_zero_head() const {
    add_constant("attn_norm.weight", {spec_.hidden_size}, 1.0);
    add_constant("attn_qkv.weight", {3 * spec_.head_dim, spec_.hidden_size}, 0.0);
    add_constant("attn_q_norm.weight", {spec_.head_dim}, 1.0);
    add_constant("attn_k_norm.weight", {spec_.head_dim}, 1.0);
    add_constant("attn_output.weight", {spec_.hidden_size, spec_.head_dim}, 0.0);
  }

  // openelm's rotary embedding is half-split, as ours.
  void write_fused_attention(const AttentionWeights& w) const {
    make("attn_qkv.weight", {w.q.size(0) + w.k.size(0) + w.v.size(0), spec_.hidden_size},
         [q = w.q, k = w.k, v = w.v] { return at::cat({q, k, v}); });
    add("attn_q_norm.weight", w.q_norm);
    add("attn_k_norm.weight", w.k_norm);
    add("attn_output.weight", w.o);
  }

  void write_zero_ffn(std::int64_t width) const {
    add_constant("ffn_norm.weight", {spec_.hidden_size}, 1.0);
    add_constant("ffn_gate.weight", {width, spec_.hidden_size}, 0.0);
    add_constant("ffn_up.weight", {width, spec_.hidden_size}, 0.0);
    add_constant("ffn_down.weight", {spec_.hidden_size, width}, 0.0);
  }

  // docs/formats.md: silu of a large constant gate is that constant.
  void write_linear_ffn(const FfnWeights& w) const {
    const std::int64_t width = spec_.hidden_size;
    const LinearFfnForm form = linear_ffn_form(stored_dtype(types_.matrix, width));
    add("ffn_norm.weight", w.norm);
    add_constant("ffn_gate.weight", {width, width}, 0.0);
    add_constant("ffn_gate.bias", {width}, form.gate_bias);
    add("ffn_up.weight", w.linear);
    make("ffn_down.weight", {width, width}, [width, form] {
      return at::eye(width, at::TensorOptions(at::kFloat)) * form.down_diagonal;
    });
  }

  void add_constant(const char* name, const std::vector<std::int64_t>& shape, double value) const {
    make(name, shape,
         [shape, value] { return at::full(shape, value, at::TensorOptions(at::kFloat)); });
  }

  void add_interleaved(const char* name, const at::Tensor& tensor) const {
    make(name, tensor.sizes().vec(),
         [tensor, head_dim = spec_.head_dim] { return to_interleaved_rows(tensor, head_dim); });
  }

  void make(const char* name, std::vector<std::int64_t> shape, MakeTensor tensor) const {
    add_gguf_tensor(writer_, prefix_ + name, std::move(shape), types_.matrix, std::move(tensor));
  }

  void add(const char* name, const at::Tensor& tensor) const {
    add_gguf_tensor(writer_, prefix_ + name, tensor, types_.matrix);
  }

  GgufWriter& writer_;
  const ModelSpec& spec_;
  ExportTarget target_;
  const WeightTypes& types_;
  std::string prefix_;
};

DType parse_gguf_type(const std::string& name) {
  const std::vector<std::string>& names = gguf_type_names();
  if (std::find(names.begin(), names.end(), lower(name)) == names.end()) {
    fail(ErrorKind::kUsage, "GGUF type '{}': expected like-parent, {}", name, join(names, ", "));
  }
  std::string dtype = name;
  std::transform(dtype.begin(), dtype.end(), dtype.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return find_dtype(dtype).value();
}

DType embedding_type(DType matrix) {
  switch (matrix) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
      return DType::kQ8_0;
    case DType::kQ4_K:
      return DType::kQ6_K;
    default:
      return matrix;
  }
}

bool is_layer_matrix(const StoredTensor& tensor) {
  return tensor.shape.size() >= 2 && tensor.name.starts_with("blk.");
}

// By the bytes they take.
DType most_common_matrix_type(const GgufFile& file) {
  std::map<DType, std::size_t> weights;
  for (const StoredTensor& tensor : file.tensors()) {
    if (is_layer_matrix(tensor)) {
      weights[tensor.dtype] += tensor.bytes.size();
    }
  }
  if (weights.empty()) {
    fail(ErrorKind::kFormat, "{}: holds no matrix of a layer", file.path().string());
  }
  return std::max_element(weights.begin(), weights.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

DType writable_type(DType type, const char* what, const std::filesystem::path& parent) {
  if (!can_quantize(type)) {
    fail(ErrorKind::kUsage,
         "types like-parent: {} of {} are {}, which is read but not written; name a type for all "
         "three of search.types, measure.types and export_child.types, e.g. q8_0 or q4_1",
         what, parent.filename().string(), dtype_name(type));
  }
  return type;
}

}  // namespace

void write_model_gguf(const std::filesystem::path& path, const ModelWeights& model,
                      const GgufExport& options) {
  const c10::NoGradGuard no_grad;
  const std::vector<LoweredBlock> lowered = lower_model(options.target, model.spec);
  GgufWriter writer;
  ModelSpec named = model.spec;
  named.name = options.name;
  write_gguf_config(options.target, named, options.types.matrix, writer);
  if (!options.license.empty()) {
    writer.add_string("general.license", options.license);
  }
  if (!options.parent_name.empty()) {
    writer.add_u32("general.base_model.count", 1);
    writer.add_string("general.base_model.0.name", options.parent_name);
  }
  if (!options.content_key.empty()) {
    writer.add_string("puzzle.content_key", options.content_key);
  }
  for (const auto& [key, value] :
       load_gguf_tokenizer_keys(tokenizer_path(options.tokenizer_source), model.spec.vocab_size)) {
    writer.add_value(key, value);
  }
  add_gguf_tensor(writer, "token_embd.weight", model.embedding, options.types.embedding);
  std::int64_t index = 0;
  for (std::size_t i = 0; i < lowered.size(); ++i) {
    if (lowered[i].dropped) {
      continue;
    }
    const LayerWriter layer(writer, model.spec, options, index++);
    layer.write_attention(model.layers[i].attention, lowered[i]);
    layer.write_ffn(model.layers[i].ffn, lowered[i]);
  }
  add_gguf_tensor(writer, "output_norm.weight", model.final_norm, DType::kF32);
  if (!model.spec.tie_embeddings) {
    add_gguf_tensor(writer, "output.weight", model.head, options.types.embedding);
  }
  writer.write(path);
}

at::Tensor stored_values(const at::Tensor& tensor, DType wanted) {
  const std::int64_t row_length = tensor.size(-1);
  const DType dtype = stored_dtype(wanted, row_length);
  const at::Tensor rows =
      tensor.detach().to(at::kCPU, at::kFloat).reshape({-1, row_length}).contiguous();
  if (dtype == DType::kF32) {
    return rows.reshape(tensor.sizes());
  }
  std::vector<std::byte> bytes;
  write_rows(dtype, rows, [&bytes](std::span<const std::byte> part) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  });
  at::Tensor values = at::empty_like(rows);
  dequantize(dtype, bytes,
             {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  return values.reshape(tensor.sizes());
}

bool is_gguf_format(std::string_view format) {
  return format == "gguf" || format == "gguf-openelm";
}

bool has_gguf_format(const std::vector<std::string>& formats) {
  return std::any_of(formats.begin(), formats.end(), is_gguf_format);
}

std::optional<ExportTarget> gguf_format_target(const std::vector<std::string>& formats) {
  const auto holds = [&formats](const char* name) {
    return std::find(formats.begin(), formats.end(), name) != formats.end();
  };
  if (holds("gguf") && holds("gguf-openelm")) {
    fail(ErrorKind::kUsage,
         "export_child.formats: both gguf and gguf-openelm; the one needs norms of q and k, the "
         "other none, so name one");
  }
  if (holds("gguf")) {
    return ExportTarget::kDeci;
  }
  return holds("gguf-openelm") ? std::optional(ExportTarget::kOpenElm) : std::nullopt;
}

const std::vector<std::string>& gguf_type_names() {
  static const std::vector<std::string> kNames = {"f32",  "f16",  "bf16", "q8_0", "q5_0",
                                                  "q4_0", "q4_1", "q4_k", "q6_k"};
  return kNames;
}

WeightTypes gguf_weight_types(const std::string& name, const std::filesystem::path& parent) {
  WeightTypes types;
  if (name != "like-parent") {
    types.matrix = parse_gguf_type(name);
    types.embedding = embedding_type(types.matrix);
    return types;
  }
  types.matrix = DType::kF16;
  types.embedding = DType::kF16;
  if (parent.extension() == ".gguf") {
    const GgufFile file(parent);
    types.matrix = writable_type(most_common_matrix_type(file), "matrices", parent);
    types.embedding =
        writable_type(file.tensor("token_embd.weight").dtype, "token embedding", parent);
  }
  return types;
}

}  // namespace puzzle
