// The library: every variant's weights, one safetensors file per layer and state of training.
//
// A library of one state (freshly initialised, or after block-local distillation) has one key, a
// hash of everything it depends on. Its files are library/<key>/layer-007.safetensors; tensors are
// named "attention/kv1/self_attn.k_proj.weight", "ffn/linear/mlp.linear_mlp.weight", and for
// coupled pairs "block/kv1/w768/…". The parent's own variants and "none" are not stored.
//
// FFN widths are not stored one by one: init-library and nested distillation keep one order of
// channels that gives any width up to the largest of the space (model/nested_ffn.h), under
// "nested/w1472/…" and "trained/w1472/…", so that a library does not grow with the number of
// widths. Widths trained on their own have rows of their own, "ffn/w768/mlp.up_proj.weight".
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/base/hash.h"
#include "puzzle/model/nested_ffn.h"
#include "puzzle/model/weights.h"

namespace puzzle {

// Widths for which nested training is better than what it started from.
struct TrainedWidths {
  NestedFfn nested;
  std::vector<std::int64_t> widths;  // ascending
};

// The variants of one layer that have weights of their own.
struct LayerLibrary {
  std::map<AttentionSpec, AttentionWeights> attention;
  std::map<FfnSpec, FfnWeights> ffn;          // linear, and widths trained on their own
  std::optional<NestedFfn> nested;            // all widths as they were initialised
  std::optional<TrainedWidths> trained;       // preferred over `nested`, `ffn` over both
  std::map<BlockSpec, LayerWeights> coupled;  // trained together; preferred over the halves

  // What a width that is not in `ffn` is made from; null if there is nothing.
  [[nodiscard]] const NestedFfn* find_nested(std::int64_t width) const;
};

[[nodiscard]] std::filesystem::path library_folder(const std::filesystem::path& run_folder,
                                                   const std::string& key);
[[nodiscard]] std::filesystem::path layer_file(const std::filesystem::path& library_folder,
                                               std::int64_t layer);

// What a library's key says of the variants it holds.
void add_space_to_key(KeyBuilder& key, const SearchSpace& space);

// Throws Error(kIo). The file appears by rename.
void save_layer_library(const std::filesystem::path& file, const LayerLibrary& library,
                        const std::map<std::string, std::string>& metadata = {});
// Tensors stay in the mapped file where `type` is the stored one, and never leave the CPU: a
// layer's variants are many times what is used of them at a time. Throws Error(kIo),
// Error(kFormat).
[[nodiscard]] LayerLibrary load_layer_library(const std::filesystem::path& file,
                                              const ModelSpec& parent, c10::ScalarType type);
// The same of a layer; empty where there is no file, i.e. the layer has only parts of the parent.
[[nodiscard]] LayerLibrary find_layer_library(const std::filesystem::path& library_folder,
                                              std::int64_t layer, const ModelWeights& parent);

// Any block of layer `layer`, on the parent's device: parent halves from `parent`, the others from
// `library`.
// A width of a nested FFN costs a product of D × w × w each time. Throws Error(kUsage) for a
// variant that the library does not hold.
[[nodiscard]] LayerWeights make_block(const ModelWeights& parent, const LayerLibrary& library,
                                      std::int64_t layer, const BlockSpec& block);
[[nodiscard]] AttentionWeights make_attention_variant(const ModelWeights& parent,
                                                      const LayerLibrary& library,
                                                      std::int64_t layer,
                                                      const AttentionSpec& attention);
[[nodiscard]] FfnWeights make_ffn_variant(const ModelWeights& parent, const LayerLibrary& library,
                                          std::int64_t layer, const FfnSpec& ffn);

// A whole child: the parent's embedding, final norm and head with the blocks of `architecture`,
// which has one block per parent layer, on the parent's device. Tensors are shared with parent and
// library, not copied where the device is the CPU.
[[nodiscard]] ModelWeights make_child(const ModelWeights& parent,
                                      const std::filesystem::path& library_folder,
                                      const Architecture& architecture);

}  // namespace puzzle
