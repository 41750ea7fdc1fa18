#include "puzzle/model/checkpoint.h"

#include <set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/ranges.h>

#include "puzzle/arch/gguf_config.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/llama2c_file.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/tensor/convert.h"
#include "puzzle/tensor/tensor_file.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

enum class ModelFormat { kGguf, kHuggingFace, kLlama2c };

ModelFormat model_format(const fs::path& path) {
  if (!fs::exists(path)) {
    fail(ErrorKind::kIo,
         "{}: there is no such file or folder; expected a .gguf file or a Hugging Face folder",
         path.string());
  }
  if (fs::is_directory(path)) {
    return ModelFormat::kHuggingFace;
  }
  if (path.extension() == ".gguf") {
    return ModelFormat::kGguf;
  }
  if (path.extension() == ".bin") {
    return ModelFormat::kLlama2c;
  }
  fail(ErrorKind::kUsage,
       "{}: expected a .gguf file, a Hugging Face folder or a llama2.c .bin file", path.string());
}

// "model.layers.3.self_attn.q_proj" -> "blk.3.attn_q", without the suffix.
std::string gguf_name(const std::string& hf_name) {
  static const std::map<std::string, std::string> kNames = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.linear_attn", "attn_output"},
      {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.linear_mlp", "ffn_up"},  // of the rewrite that read_gguf_config undoes
      {"mlp.down_proj", "ffn_down"}};
  if (const auto whole = kNames.find(hf_name); whole != kNames.end()) {
    return whole->second;
  }
  const std::string prefix = "model.layers.";
  const std::size_t dot = hf_name.find('.', prefix.size());
  const std::size_t suffix = hf_name.rfind('.');
  const std::string layer = hf_name.substr(prefix.size(), dot - prefix.size());
  const auto part = kNames.find(hf_name.substr(dot + 1, suffix - dot - 1));
  PUZZLE_CHECK(part != kNames.end(), "no GGUF name for {}", hf_name);
  return "blk." + layer + "." + part->second + hf_name.substr(suffix);
}

bool has_rotary_rows(const std::string& name) {
  return name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos;
}

ModelWeights build_model(const ModelSpec& spec, const TensorSource& source) {
  const auto in_layer = [&](std::size_t layer) {
    return [&source, layer](const NamedShape& wanted) {
      return source({fmt::format("model.layers.{}.{}", layer, wanted.name), wanted.shape});
    };
  };
  ModelWeights weights;
  weights.spec = spec;
  const std::vector<std::int64_t> vocabulary_shape = {spec.vocab_size, spec.hidden_size};
  weights.embedding = source({"model.embed_tokens.weight", vocabulary_shape});
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    weights.layers.push_back({make_attention(spec, spec.layers[i].attention, in_layer(i)),
                              make_ffn(spec, spec.layers[i].ffn, in_layer(i))});
  }
  weights.final_norm = source({"model.norm.weight", {spec.hidden_size}});
  weights.head =
      spec.tie_embeddings ? weights.embedding : source({"lm_head.weight", vocabulary_shape});
  return weights;
}

// q, k or v as rows of the matrix that holds all three; others as they are.
StoredTensor split_fused_rows(const GgufFile& file, const ModelSpec& spec,
                              const NamedShape& wanted) {
  const std::string name = gguf_name(wanted.name);
  const std::vector<std::string> parts = split(name, '.');  // blk, layer, part, weight
  static const std::map<std::string, int> kPlaces = {{"attn_q", 0}, {"attn_k", 1}, {"attn_v", 2}};
  const auto place = parts.size() == 4 ? kPlaces.find(parts[2]) : kPlaces.end();
  if (place == kPlaces.end()) {
    return file.tensor(name);
  }
  StoredTensor fused = file.tensor(fmt::format("blk.{}.attn_qkv.weight", parts[1]));
  const std::int64_t kv_heads = spec.layers.at(std::stoul(parts[1])).attention.kv_heads;
  const std::vector<std::int64_t> expected = {(spec.num_heads + 2 * kv_heads) * spec.head_dim,
                                              wanted.shape.back()};
  if (fused.shape != expected) {
    return fused;  // which is refused with its shape
  }
  const std::int64_t first =
      place->second == 0 ? 0 : (spec.num_heads + (place->second - 1) * kv_heads) * spec.head_dim;
  const std::size_t row_bytes = fused.bytes.size() / static_cast<std::size_t>(expected[0]);
  fused.bytes = fused.bytes.subspan(static_cast<std::size_t>(first) * row_bytes,
                                    static_cast<std::size_t>(wanted.shape[0]) * row_bytes);
  fused.shape = wanted.shape;
  return fused;
}

ModelWeights load_gguf(const fs::path& path, c10::ScalarType type) {
  const GgufFile file(path);
  const ModelSpec spec = read_gguf_config(file);  // refuses tensors that have no place in the model
  const bool is_interleaved = has_interleaved_rotary_rows(file);
  const bool is_fused = has_fused_attention(file);
  return build_model(spec, [&](const NamedShape& wanted) {
    const StoredTensor stored =
        is_fused ? split_fused_rows(file, spec, wanted) : file.tensor(gguf_name(wanted.name));
    const at::Tensor tensor = read_tensor(stored, wanted.shape, type, path.string());
    return is_interleaved && has_rotary_rows(wanted.name)
               ? from_interleaved_rows(tensor, spec.head_dim)
               : tensor;
  });
}

ModelWeights load_llama2c(const fs::path& path, c10::ScalarType type) {
  const Llama2cFile file(path);
  return build_model(file.spec(), [&](const NamedShape& wanted) {
    const at::Tensor tensor =
        read_tensor(file.tensor(wanted.name), wanted.shape, type, path.string());
    return has_rotary_rows(wanted.name) ? from_interleaved_rows(tensor, file.spec().head_dim)
                                        : tensor;
  });
}

// Tensors of a Llama folder that hold nothing of their own: tables, and a tied head's copy.
bool is_redundant(const std::string& name, const ModelSpec& spec) {
  return name.ends_with("rotary_emb.inv_freq") || (spec.tie_embeddings && name == "lm_head.weight");
}

// The folder of a run is what people have at hand, and is no model itself.
ModelSpec load_folder_spec(const fs::path& folder) {
  if (fs::exists(folder / "config.json")) {
    return load_hf_config(folder);
  }
  if (!fs::exists(folder / "run.db")) {
    fail(ErrorKind::kIo, "{}: holds no model; expected a Hugging Face folder, with config.json",
         folder.string());
  }
  const fs::path children = folder / "children";
  fail(ErrorKind::kIo, "{}: is the folder of a run and holds no model; {}", folder.string(),
       fs::exists(children / "child") ? "its child is in " + (children / "child").string()
                                      : "children are made below " + children.string());
}

ModelWeights load_hugging_face(const fs::path& folder, c10::ScalarType type) {
  const ModelSpec spec = load_folder_spec(folder);
  const SafetensorsModel model(folder);
  std::set<std::string> used;
  ModelWeights weights = build_model(spec, [&](const NamedShape& wanted) {
    used.insert(wanted.name);
    return read_tensor(model.tensor(wanted.name), wanted.shape, type, folder.string());
  });
  for (const auto& [name, tensor] : model.tensors()) {
    if (!used.contains(name) && !is_redundant(name, spec)) {
      fail(ErrorKind::kFormat,
           "{}: tensor {} has no place in the model that config.json describes; it would be "
           "ignored. Is the configuration complete (attention_bias, mlp_bias), the model a plain "
           "Llama?",
           folder.string(), name);
    }
  }
  return weights;
}

ModelWeights load_any(const fs::path& path, c10::ScalarType type) {
  switch (model_format(path)) {
    case ModelFormat::kGguf:
      return load_gguf(path, type);
    case ModelFormat::kHuggingFace:
      return load_hugging_face(path, type);
    case ModelFormat::kLlama2c:
      return load_llama2c(path, type);
  }
  fail(ErrorKind::kInternal, "unknown model format");
}

at::Tensor swap_rotary_axes(const at::Tensor& tensor, std::int64_t head_dim, std::int64_t first,
                            std::int64_t second) {
  std::vector<std::int64_t> shape = tensor.sizes().vec();
  std::vector<std::int64_t> split = {-1, first, second};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  PUZZLE_CHECK(shape[0] % head_dim == 0, "{} rows are no whole heads of {}", shape[0], head_dim);
  return tensor.reshape(split).transpose(1, 2).reshape(shape).contiguous();
}

}  // namespace

ModelSpec load_model_spec(const fs::path& path) {
  switch (model_format(path)) {
    case ModelFormat::kGguf:
      return read_gguf_config(GgufFile(path));
    case ModelFormat::kHuggingFace:
      return load_folder_spec(path);
    case ModelFormat::kLlama2c:
      return Llama2cFile(path).spec();
  }
  fail(ErrorKind::kInternal, "unknown model format");
}

ModelWeights load_model(const fs::path& path, c10::ScalarType type) {
  const c10::NoGradGuard no_grad;
  ModelWeights model = load_any(path, type);
  if (!model.spec.context_limit.empty()) {
    log_warning("{}: the context is {} tokens: {}", path.string(), model.spec.context_length,
                model.spec.context_limit);
  }
  return model;
}

std::string model_content_key(const fs::path& path) {
  const ModelFormat format = model_format(path);
  const std::vector<fs::path> files =
      format == ModelFormat::kGguf ? GgufFile(path).files() : std::vector<fs::path>{path};
  if (format != ModelFormat::kHuggingFace && files.size() == 1) {
    return hash_file(path);
  }
  KeyBuilder key;
  if (format == ModelFormat::kGguf) {
    for (const fs::path& file : files) {
      key.add("part", hash_file(file));
    }
    return key.key();
  }
  key.add("config.json", hash_file(path / "config.json"));
  const SafetensorsModel model(path);
  for (const fs::path& file : model.files()) {
    key.add(file.filename().string(), hash_file(file));
  }
  return key.key();
}

fs::path tokenizer_path(const fs::path& path) {
  return model_format(path) == ModelFormat::kLlama2c ? llama2c_tokenizer_path(path) : path;
}

at::Tensor from_interleaved_rows(const at::Tensor& tensor, std::int64_t head_dim) {
  return swap_rotary_axes(tensor, head_dim, head_dim / 2, 2);
}

at::Tensor to_interleaved_rows(const at::Tensor& tensor, std::int64_t head_dim) {
  return swap_rotary_axes(tensor, head_dim, 2, head_dim / 2);
}

void save_weights(const fs::path& file, const ModelWeights& weights, c10::ScalarType type,
                  const std::map<std::string, std::string>& metadata) {
  const c10::NoGradGuard no_grad;
  std::vector<TensorToWrite> tensors;
  visit_tensors(weights, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  TensorToWrite entry;
                  entry.name = name;
                  entry.dtype = dtype_of(type);
                  entry.shape = tensor.sizes().vec();
                  entry.produce = [tensor, type](const ByteSink& sink) {
                    sink(tensor_bytes(tensor.detach().to(at::kCPU, type).contiguous()));
                  };
                  tensors.push_back(std::move(entry));
                }));
  write_safetensors(file, std::move(tensors), metadata);
}

}  // namespace puzzle
