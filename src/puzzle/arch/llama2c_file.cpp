#include "puzzle/arch/llama2c_file.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr std::size_t kLlama2cHeaderBytes = 7 * sizeof(std::int32_t);

ModelSpec parse_llama2c_header(const MappedFile& file) {
  const std::string place = file.path().string();
  std::array<std::int32_t, 7> header = {};
  if (file.bytes().size() < kLlama2cHeaderBytes) {
    fail(ErrorKind::kFormat, "{}: {} bytes, too short for a llama2.c checkpoint", place,
         file.bytes().size());
  }
  std::memcpy(header.data(), file.bytes().data(), kLlama2cHeaderBytes);
  const std::int64_t signed_vocab = header[5];
  const std::int64_t vocab = signed_vocab < 0 ? -signed_vocab : signed_vocab;
  const std::int64_t dim = header[0], ffn = header[1], layers = header[2], heads = header[3],
                     kv_heads = header[4], context = header[6];
  constexpr std::int64_t kMost = 1 << 20;
  for (const std::int64_t value : {dim, ffn, layers, heads, kv_heads, vocab, context}) {
    if (value <= 0 || value > kMost) {
      fail(ErrorKind::kFormat, "{}: a size of {} in the header; this is no llama2.c checkpoint",
           place, value);
    }
  }
  if (dim % heads != 0) {
    fail(ErrorKind::kFormat, "{}: {} heads of a width of {}, expected a divisor of it", place,
         heads, dim);
  }
  ModelSpec spec;
  spec.name = file.path().stem().string();
  spec.hidden_size = dim;
  spec.num_heads = heads;
  spec.head_dim = dim / heads;
  spec.vocab_size = vocab;
  spec.context_length = context;
  spec.tie_embeddings = signed_vocab > 0;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  spec.layers.assign(static_cast<std::size_t>(layers),
                     {AttentionSpec::gqa(kv_heads), FfnSpec::swiglu(ffn)});
  check_model_spec(spec, place);
  return spec;
}

// Cuts the file into tensors, front to back.
class Llama2cCutter {
 public:
  explicit Llama2cCutter(std::shared_ptr<const MappedFile> file)
      : file_(std::move(file)),
        place_(file_->path().string()),
        rest_(file_->bytes().subspan(kLlama2cHeaderBytes)) {}

  StoredTensor take(const std::string& name, std::vector<std::int64_t> shape) {
    const std::uint64_t wanted = byte_size(DType::kF32, num_elements(shape, place_), place_);
    if (wanted > rest_.size()) {
      fail(ErrorKind::kFormat,
           "{}: the file's {} bytes end inside {} [{}], as its header sizes it; is it truncated? "
           "download it again",
           place_, file_->bytes().size(), name, fmt::join(shape, ", "));
    }
    StoredTensor tensor{.name = name,
                        .dtype = DType::kF32,
                        .shape = std::move(shape),
                        .bytes = rest_.first(wanted),
                        .file = file_};
    rest_ = rest_.subspan(wanted);
    return tensor;
  }

  void expect_end() const {
    if (!rest_.empty()) {
      fail(ErrorKind::kFormat, "{}: {} bytes after the last tensor; this is no llama2.c checkpoint",
           place_, rest_.size());
    }
  }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::string place_;
  std::span<const std::byte> rest_;
};

// Layer `index` of a tensor [layers, …].
StoredTensor layer_of(const StoredTensor& stacked, std::size_t index) {
  StoredTensor tensor = stacked;
  const std::size_t bytes = stacked.bytes.size() / static_cast<std::size_t>(stacked.shape[0]);
  tensor.name = fmt::format("model.layers.{}.{}", index, stacked.name);
  tensor.shape.erase(tensor.shape.begin());
  tensor.bytes = stacked.bytes.subspan(index * bytes, bytes);
  return tensor;
}

}  // namespace

Llama2cFile::Llama2cFile(const std::filesystem::path& path)
    : file_(std::make_shared<const MappedFile>(path)), spec_(parse_llama2c_header(*file_)) {
  Llama2cCutter cutter(file_);
  const auto add = [this](StoredTensor tensor) {
    std::string name = tensor.name;
    tensors_.emplace(std::move(name), std::move(tensor));
  };
  const std::int64_t hidden = spec_.hidden_size;
  const std::int64_t kv_rows = spec_.layers[0].attention.kv_heads * spec_.head_dim;
  const std::int64_t width = spec_.layers[0].ffn.width;
  add(cutter.take("model.embed_tokens.weight", {spec_.vocab_size, hidden}));
  const std::vector<std::pair<const char*, std::vector<std::int64_t>>> stacks = {
      {"input_layernorm.weight", {hidden}},
      {"self_attn.q_proj.weight", {hidden, hidden}},
      {"self_attn.k_proj.weight", {kv_rows, hidden}},
      {"self_attn.v_proj.weight", {kv_rows, hidden}},
      {"self_attn.o_proj.weight", {hidden, hidden}},
      {"post_attention_layernorm.weight", {hidden}},
      {"mlp.gate_proj.weight", {width, hidden}},
      {"mlp.down_proj.weight", {hidden, width}},
      {"mlp.up_proj.weight", {width, hidden}}};
  for (const auto& [name, shape] : stacks) {
    std::vector<std::int64_t> stacked_shape = shape;
    stacked_shape.insert(stacked_shape.begin(), spec_.num_layers());
    const StoredTensor stacked = cutter.take(name, std::move(stacked_shape));
    for (std::size_t layer = 0; layer < spec_.layers.size(); ++layer) {
      add(layer_of(stacked, layer));
    }
  }
  add(cutter.take("model.norm.weight", {hidden}));
  (void)cutter.take("the rotary tables", {2, spec_.context_length, spec_.head_dim / 2});
  if (!spec_.tie_embeddings) {
    add(cutter.take("lm_head.weight", {spec_.vocab_size, hidden}));
  }
  cutter.expect_end();
}

const StoredTensor& Llama2cFile::tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, tensor] : tensors_) {
      names.push_back(known);
    }
    fail_missing_tensor(file_->path().string(), name, names);
  }
  return found->second;
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
