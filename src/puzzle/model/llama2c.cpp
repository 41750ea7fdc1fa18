#include "puzzle/model/llama2c.h"

#include <array>
#include <cstring>
#include <map>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/model/checkpoint.h"

namespace puzzle {
namespace {

constexpr std::size_t kLlama2cHeaderBytes = 7 * sizeof(std::int32_t);

ModelSpec parse_llama2c_header(const MappedFile& file) {
  std::array<std::int32_t, 7> header = {};
  if (file.bytes().size() < kLlama2cHeaderBytes) {
    fail(ErrorKind::kFormat, "{}: {} bytes, too short for a llama2.c checkpoint",
         file.path().string(), file.bytes().size());
  }
  std::memcpy(header.data(), file.bytes().data(), kLlama2cHeaderBytes);
  const auto [dim, ffn, layers, heads, kv_heads, vocab, context] = header;
  constexpr std::int32_t kMost = 1 << 20;
  for (const std::int32_t value : {dim, ffn, layers, heads, kv_heads, std::abs(vocab), context}) {
    if (value <= 0 || value > kMost) {
      fail(ErrorKind::kFormat, "{}: a size of {} in the header; this is no llama2.c checkpoint",
           file.path().string(), value);
    }
  }
  ModelSpec spec;
  spec.name = file.path().stem().string();
  spec.hidden_size = dim;
  spec.num_heads = heads;
  spec.head_dim = dim / heads;
  spec.vocab_size = std::abs(vocab);
  spec.context_length = context;
  spec.tie_embeddings = vocab > 0;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  spec.layers.assign(static_cast<std::size_t>(layers),
                     {AttentionSpec::gqa(kv_heads), FfnSpec::swiglu(ffn)});
  check_model_spec(spec, file.path().string());
  return spec;
}

}  // namespace

ModelSpec read_llama2c_spec(const std::filesystem::path& path) {
  return parse_llama2c_header(MappedFile(path));
}

ModelWeights load_llama2c(const std::filesystem::path& path) {
  const MappedFile file(path);
  const ModelSpec spec = parse_llama2c_header(file);
  std::size_t offset = kLlama2cHeaderBytes;
  const auto take = [&](const std::vector<std::int64_t>& shape) {
    at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
    if (tensor.nbytes() > file.bytes().size() - offset) {
      fail(ErrorKind::kFormat, "{}: ends at {} bytes, expected more tensors; is it truncated?",
           path.string(), file.bytes().size());
    }
    std::memcpy(tensor.data_ptr(), file.bytes().data() + offset, tensor.nbytes());
    offset += tensor.nbytes();
    return tensor;
  };
  const std::int64_t layers = spec.num_layers();
  const std::int64_t hidden = spec.hidden_size;
  const std::int64_t kv_rows = spec.layers[0].attention.kv_heads * spec.head_dim;
  const std::int64_t width = spec.layers[0].ffn.width;
  const at::Tensor embedding = take({spec.vocab_size, hidden});
  std::map<std::string, at::Tensor> stacked;  // [layers, …], in file order
  const auto stack = [&](const char* name, std::vector<std::int64_t> shape) {
    shape.insert(shape.begin(), layers);
    stacked[name] = take(shape);
  };
  stack("input_layernorm.weight", {hidden});
  stack("self_attn.q_proj.weight", {hidden, hidden});
  stack("self_attn.k_proj.weight", {kv_rows, hidden});
  stack("self_attn.v_proj.weight", {kv_rows, hidden});
  stack("self_attn.o_proj.weight", {hidden, hidden});
  stack("post_attention_layernorm.weight", {hidden});
  stack("mlp.gate_proj.weight", {width, hidden});
  stack("mlp.down_proj.weight", {hidden, width});
  stack("mlp.up_proj.weight", {width, hidden});
  ModelWeights weights;
  weights.spec = spec;
  weights.embedding = embedding;
  weights.final_norm = take({hidden});
  (void)take({2, spec.context_length, spec.head_dim / 2});
  weights.head = spec.tie_embeddings ? embedding : take({spec.vocab_size, hidden});
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto source = [&](const NamedShape& wanted) {
      const at::Tensor tensor = stacked.at(wanted.name)[i].clone();
      const bool rotary =
          wanted.name == "self_attn.q_proj.weight" || wanted.name == "self_attn.k_proj.weight";
      return rotary ? from_interleaved_rows(tensor, spec.head_dim) : tensor;
    };
    const BlockSpec& block = spec.layers[static_cast<std::size_t>(i)];
    weights.layers.push_back(
        {make_attention(spec, block.attention, source), make_ffn(spec, block.ffn, source)});
  }
  return weights;
}

std::filesystem::path llama2c_tokenizer_path(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> found;
  const std::filesystem::path folder = path.parent_path().empty() ? "." : path.parent_path();
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("tok") && name.ends_with(".bin")) {
      found.push_back(entry.path());
    }
  }
  if (found.size() != 1) {
    fail(ErrorKind::kIo, "{}: {} files tok*.bin beside it, expected one with its tokenizer",
         path.string(), found.size());
  }
  return found.front();
}

}  // namespace puzzle
