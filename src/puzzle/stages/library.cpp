#include "puzzle/stages/library.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/tensor/convert.h"
#include "puzzle/tensor/tensor_file.h"

namespace puzzle {
namespace {

constexpr const char* kNestedPrefix = "nested/";
constexpr const char* kTrainedPrefix = "trained/";
constexpr const char* kBasisName = "mlp.down_basis";
constexpr const char* kDownName = "mlp.down_proj.weight";
constexpr const char* kTrainedWidths = "puzzle.trained_widths";  // metadata: "64,128"

template <class Weights>
void add_library_tensors(const std::string& prefix, const Weights& weights,
                         std::vector<TensorToWrite>& tensors) {
  visit_tensors(weights, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors.push_back(tensor_to_write(prefix + name, tensor));
                }));
}

void add_nested_tensors(const std::string& kind, const NestedFfn& nested,
                        std::vector<TensorToWrite>& tensors) {
  const std::string prefix = kind + nested.whole.spec.name() + "/";
  add_library_tensors(prefix, nested.whole, tensors);
  if (nested.basis.defined()) {
    tensors.push_back(tensor_to_write(prefix + kBasisName, nested.basis));
  }
}

// What a tensor belongs to: one half, or both of a pair.
struct LibraryTensorName {
  std::string kind;  // attention, ffn, block, nested, trained
  std::optional<AttentionSpec> attention;
  std::optional<FfnSpec> ffn;
  std::string prefix;  // of all tensors of the variant: "ffn/w768/"
};

LibraryTensorName parse_library_tensor_name(const std::filesystem::path& file,
                                            const std::string& tensor, const ModelSpec& parent) {
  const std::size_t kind_end = tensor.find('/');
  const std::size_t name_end = tensor.rfind('/');
  const std::string kind = tensor.substr(0, kind_end);
  const bool is_nested = kind == "nested" || kind == "trained";
  if (kind_end == name_end ||
      (kind != "attention" && kind != "ffn" && kind != "block" && !is_nested)) {
    fail(ErrorKind::kFormat, "{}: tensor {} is no library tensor", file.string(), tensor);
  }
  const std::string variant = tensor.substr(kind_end + 1, name_end - kind_end - 1);
  LibraryTensorName name{kind, std::nullopt, std::nullopt, tensor.substr(0, name_end + 1)};
  try {
    if (kind == "block") {
      const BlockSpec block = parse_block(variant);
      name.attention = block.attention;
      name.ffn = block.ffn;
    } else if (kind == "attention") {
      name.attention = parse_attention(variant);
    } else {
      name.ffn = parse_ffn(variant);
    }
  } catch (const Error& error) {
    fail(ErrorKind::kFormat, "{}: tensor {}: {}", file.string(), tensor, error.what());
  }
  if (is_nested && name.ffn->kind != FfnKind::kSwiglu) {
    fail(ErrorKind::kFormat, "{}: tensor {}: expected a width, as in nested/w1472/", file.string(),
         tensor);
  }
  if (name.attention && name.attention->kind == AttentionKind::kGqa &&
      parent.num_heads % name.attention->kv_heads != 0) {
    fail(ErrorKind::kFormat,
         "{}: tensor {}: attention variant '{}', expected KV heads that divide the parent's {} "
         "heads; is the library of another parent?",
         file.string(), tensor, name.attention->name(), parent.num_heads);
  }
  return name;
}

std::vector<std::int64_t> parse_trained_widths(const SafetensorsFile& file, std::int64_t largest) {
  const auto found = file.metadata().find(kTrainedWidths);
  const std::string text = found == file.metadata().end() ? "" : found->second;
  std::vector<std::int64_t> widths;
  for (const std::string& word : split(text, ',')) {
    const auto width = parse_number<std::int64_t>(word);
    const std::int64_t last = widths.empty() ? 0 : widths.back();
    if (!width || *width <= last || *width > largest) {
      fail(ErrorKind::kFormat, "{}: {} is '{}', expected rising widths up to {}",
           file.path().string(), kTrainedWidths, text, largest);
    }
    widths.push_back(*width);
  }
  return widths;
}

// Reads the variants of one file.
class LibraryReader {
 public:
  LibraryReader(const std::filesystem::path& path, const ModelSpec& parent, c10::ScalarType type)
      : path_(path), file_(path), parent_(parent), type_(type) {}

  [[nodiscard]] LayerLibrary read() const {
    LayerLibrary library;
    for (const StoredTensor& tensor : file_.tensors()) {
      add(parse_library_tensor_name(path_, tensor.name, parent_), library);
    }
    return library;
  }

 private:
  void add(const LibraryTensorName& name, LayerLibrary& library) const {
    if (name.kind == "block") {
      const BlockSpec spec{*name.attention, *name.ffn};
      if (!library.coupled.contains(spec)) {
        library.coupled[spec] = {make_attention(parent_, spec.attention, source(name.prefix)),
                                 make_ffn(parent_, spec.ffn, source(name.prefix))};
      }
    } else if (name.kind == "attention" && !library.attention.contains(*name.attention)) {
      library.attention[*name.attention] =
          make_attention(parent_, *name.attention, source(name.prefix));
    } else if (name.kind == "ffn" && !library.ffn.contains(*name.ffn)) {
      library.ffn[*name.ffn] = make_ffn(parent_, *name.ffn, source(name.prefix));
    } else if (name.kind == "nested" && !library.nested) {
      library.nested = read_nested(name);
    } else if (name.kind == "trained" && !library.trained) {
      library.trained = {read_nested(name), parse_trained_widths(file_, name.ffn->width)};
    }
  }

  [[nodiscard]] NestedFfn read_nested(const LibraryTensorName& name) const {
    const std::string basis = name.prefix + kBasisName;
    const bool has_basis = file_.find_tensor(basis) != nullptr;
    NestedFfn nested;
    // Beside a basis the down projection has the basis's type, whatever the model's is.
    nested.whole = make_ffn(parent_, *name.ffn, [&](const NamedShape& wanted) {
      const bool is_coefficients = has_basis && wanted.name == kDownName;
      return read_tensor(name.prefix + wanted.name, wanted.shape,
                         is_coefficients ? std::nullopt : std::optional(type_));
    });
    if (has_basis) {
      const std::int64_t width = name.ffn->width;
      nested.basis = read_tensor(basis, {width * (width + 1) / 2}, std::nullopt);
    }
    return nested;
  }

  [[nodiscard]] TensorSource source(const std::string& prefix) const {
    return [this, prefix](const NamedShape& wanted) {
      return read_tensor(prefix + wanted.name, wanted.shape, type_);
    };
  }

  // Without a type in the stored one.
  [[nodiscard]] at::Tensor read_tensor(const std::string& name,
                                       const std::vector<std::int64_t>& shape,
                                       std::optional<c10::ScalarType> type) const {
    const StoredTensor& tensor = file_.tensor(name);
    const c10::ScalarType stored = tensor.dtype == DType::kF64 ? at::kDouble : at::kFloat;
    return puzzle::read_tensor(tensor, shape, type.value_or(stored), path_.string());
  }

  const std::filesystem::path& path_;
  SafetensorsFile file_;
  const ModelSpec& parent_;
  c10::ScalarType type_;
};

[[noreturn]] void fail_missing_variant(std::int64_t layer, const std::string& variant) {
  fail(ErrorKind::kUsage,
       "library: layer {} has no variant {}; it is not in the search space that the library was "
       "made for",
       layer, variant);
}

}  // namespace

std::filesystem::path library_folder(const std::filesystem::path& run_folder,
                                     const std::string& key) {
  return run_folder / "library" / key.substr(0, 16);
}

std::filesystem::path layer_file(const std::filesystem::path& library_folder, std::int64_t layer) {
  return library_folder / fmt::format("layer-{:03d}.safetensors", layer);
}

void add_space_to_key(KeyBuilder& key, const SearchSpace& space) {
  for (const LayerSpace& layer : space.layers) {
    key.add("layer", "");
    for (const AttentionSpec& variant : layer.attention) {
      key.add("attention", variant.name());
    }
    for (const FfnSpec& variant : layer.ffn) {
      key.add("ffn", variant.name());
    }
  }
}

void save_layer_library(const std::filesystem::path& file, const LayerLibrary& library,
                        const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [spec, weights] : library.attention) {
    add_library_tensors("attention/" + spec.name() + "/", weights, tensors);
  }
  for (const auto& [spec, weights] : library.ffn) {
    add_library_tensors("ffn/" + spec.name() + "/", weights, tensors);
  }
  for (const auto& [spec, weights] : library.coupled) {
    add_library_tensors("block/" + spec.name() + "/", weights, tensors);
  }
  std::map<std::string, std::string> notes = metadata;
  if (library.nested) {
    add_nested_tensors(kNestedPrefix, *library.nested, tensors);
  }
  if (library.trained) {
    add_nested_tensors(kTrainedPrefix, library.trained->nested, tensors);
    notes[kTrainedWidths] = fmt::format("{}", fmt::join(library.trained->widths, ","));
  }
  make_folder(file.parent_path());
  write_safetensors(file, std::move(tensors), notes);
}

LayerLibrary load_layer_library(const std::filesystem::path& file, const ModelSpec& parent,
                                c10::ScalarType type) {
  return LibraryReader(file, parent, type).read();
}

LayerLibrary find_layer_library(const std::filesystem::path& library_folder, std::int64_t layer,
                                const ModelWeights& parent) {
  const std::filesystem::path file = layer_file(library_folder, layer);
  return std::filesystem::exists(file)
             ? load_layer_library(file, parent.spec, parent.embedding.scalar_type())
             : LayerLibrary{};
}

const NestedFfn* LayerLibrary::find_nested(std::int64_t width) const {
  if (trained && std::ranges::binary_search(trained->widths, width)) {
    return &trained->nested;
  }
  return nested && width <= nested->width() ? &*nested : nullptr;
}

AttentionWeights make_attention_variant(const ModelWeights& parent, const LayerLibrary& library,
                                        std::int64_t layer, const AttentionSpec& attention) {
  const AttentionWeights& own = parent.layers[static_cast<std::size_t>(layer)].attention;
  if (attention == own.spec) {
    return own;
  }
  if (attention.kind == AttentionKind::kNone) {
    return {};
  }
  const auto found = library.attention.find(attention);
  if (found == library.attention.end()) {
    fail_missing_variant(layer, "attention/" + attention.name());
  }
  return on_device(found->second, parent.embedding.device());
}

FfnWeights make_ffn_variant(const ModelWeights& parent, const LayerLibrary& library,
                            std::int64_t layer, const FfnSpec& ffn) {
  const FfnWeights& own = parent.layers[static_cast<std::size_t>(layer)].ffn;
  if (ffn == own.spec) {
    return own;
  }
  if (ffn.kind == FfnKind::kNone) {
    return {};
  }
  const c10::Device device = parent.embedding.device();
  if (const auto found = library.ffn.find(ffn); found != library.ffn.end()) {
    return on_device(found->second, device);
  }
  const NestedFfn* nested = ffn.kind == FfnKind::kSwiglu ? library.find_nested(ffn.width) : nullptr;
  if (nested == nullptr) {
    fail_missing_variant(layer, "ffn/" + ffn.name());
  }
  return ffn_of_width(*nested, ffn.width, device);
}

LayerWeights make_block(const ModelWeights& parent, const LayerLibrary& library, std::int64_t layer,
                        const BlockSpec& block) {
  if (const auto coupled = library.coupled.find(block); coupled != library.coupled.end()) {
    const c10::Device device = parent.embedding.device();
    return {on_device(coupled->second.attention, device), on_device(coupled->second.ffn, device)};
  }
  return {make_attention_variant(parent, library, layer, block.attention),
          make_ffn_variant(parent, library, layer, block.ffn)};
}

ModelWeights make_child(const ModelWeights& parent, const std::filesystem::path& library_folder,
                        const Architecture& architecture) {
  if (architecture.size() != parent.layers.size()) {
    fail(ErrorKind::kUsage, "architecture: {} blocks, expected {}, one per layer of the parent",
         architecture.size(), parent.layers.size());
  }
  ModelWeights child = parent;
  child.spec = with_layers(parent.spec, architecture);
  for (std::size_t i = 0; i < architecture.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if (architecture[i] == parent.layers[i].spec()) {
      continue;
    }
    child.layers[i] = make_block(parent, find_layer_library(library_folder, layer, parent), layer,
                                 architecture[i]);
  }
  return child;
}

}  // namespace puzzle
