#include "puzzle/stages/library.h"

#include <optional>
#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/tensor/convert.h"
#include "puzzle/tensor/tensor_file.h"

namespace puzzle {
namespace {

template <class Weights>
void add_library_tensors(const std::string& prefix, const Weights& weights,
                         std::vector<TensorToWrite>& tensors) {
  visit_tensors(weights, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors.push_back(tensor_to_write(prefix + name, tensor));
                }));
}

// What a tensor belongs to: one half, or both of a pair.
struct LibraryTensorName {
  std::optional<AttentionSpec> attention;
  std::optional<FfnSpec> ffn;
  std::string prefix;  // of all tensors of the variant: "ffn/w768/"
};

LibraryTensorName parse_library_tensor_name(const std::filesystem::path& file,
                                            const std::string& tensor, const ModelSpec& parent) {
  const std::size_t kind_end = tensor.find('/');
  const std::size_t name_end = tensor.rfind('/');
  const std::string kind = tensor.substr(0, kind_end);
  if (kind_end == name_end || (kind != "attention" && kind != "ffn" && kind != "block")) {
    fail(ErrorKind::kFormat, "{}: tensor {} is no library tensor", file.string(), tensor);
  }
  const std::string variant = tensor.substr(kind_end + 1, name_end - kind_end - 1);
  LibraryTensorName name{std::nullopt, std::nullopt, tensor.substr(0, name_end + 1)};
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
  if (name.attention && name.attention->kind == AttentionKind::kGqa &&
      parent.num_heads % name.attention->kv_heads != 0) {
    fail(ErrorKind::kFormat,
         "{}: tensor {}: attention variant '{}', expected KV heads that divide the parent's {} "
         "heads; is the library of another parent?",
         file.string(), tensor, name.attention->name(), parent.num_heads);
  }
  return name;
}

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
  make_folder(file.parent_path());
  write_safetensors(file, std::move(tensors), metadata);
}

LayerLibrary load_layer_library(const std::filesystem::path& file, const ModelSpec& parent,
                                const c10::Device& device, c10::ScalarType type) {
  const SafetensorsFile stored(file);
  const auto source = [&](const std::string& prefix) {
    return [&, prefix](const NamedShape& wanted) {
      const StoredTensor& tensor = stored.tensor(prefix + wanted.name);
      if (tensor.shape != wanted.shape) {
        fail(ErrorKind::kFormat,
             "{}: tensor {} has another shape than the parent's configuration asks for",
             file.string(), tensor.name);
      }
      return tensor_from_bytes(tensor.dtype, tensor.shape, tensor.bytes, tensor.file, type,
                               file.string() + ": " + tensor.name)
          .to(device);
    };
  };
  LayerLibrary library;
  for (const StoredTensor& tensor : stored.tensors()) {
    const LibraryTensorName name = parse_library_tensor_name(file, tensor.name, parent);
    if (name.attention && name.ffn) {
      const BlockSpec spec{*name.attention, *name.ffn};
      if (!library.coupled.contains(spec)) {
        library.coupled[spec] = {make_attention(parent, spec.attention, source(name.prefix)),
                                 make_ffn(parent, spec.ffn, source(name.prefix))};
      }
    } else if (name.attention && !library.attention.contains(*name.attention)) {
      library.attention[*name.attention] =
          make_attention(parent, *name.attention, source(name.prefix));
    } else if (name.ffn && !library.ffn.contains(*name.ffn)) {
      library.ffn[*name.ffn] = make_ffn(parent, *name.ffn, source(name.prefix));
    }
  }
  return library;
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
  return found->second;
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
  const auto found = library.ffn.find(ffn);
  if (found == library.ffn.end()) {
    fail_missing_variant(layer, "ffn/" + ffn.name());
  }
  return found->second;
}

LayerWeights make_block(const ModelWeights& parent, const LayerLibrary& library, std::int64_t layer,
                        const BlockSpec& block) {
  if (const auto coupled = library.coupled.find(block); coupled != library.coupled.end()) {
    return coupled->second;
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
    const auto file = layer_file(library_folder, layer);
    const LayerLibrary library =
        std::filesystem::exists(file)
            ? load_layer_library(file, parent.spec, parent.embedding.device(),
                                 parent.embedding.scalar_type())
            : LayerLibrary{};
    child.layers[i] = make_block(parent, library, layer, architecture[i]);
  }
  return child;
}

}  // namespace puzzle
