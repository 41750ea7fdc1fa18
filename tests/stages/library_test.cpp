#include "puzzle/stages/library.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/tensor/convert.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

// Tensors of one library file by name.
using LibraryTensors = std::map<std::string, at::Tensor>;

void write_library_tensors(const std::filesystem::path& file, const LibraryTensors& tensors) {
  std::vector<TensorToWrite> entries;
  for (const auto& [name, tensor] : tensors) {
    TensorToWrite entry;
    entry.name = name;
    entry.dtype = dtype_of(tensor.scalar_type());
    entry.shape = tensor.sizes().vec();
    entry.produce = [tensor = tensor](const ByteSink& sink) { sink(tensor_bytes(tensor)); };
    entries.push_back(std::move(entry));
  }
  write_safetensors(file, std::move(entries), {});
}

// A sound library: one linear FFN, one KV head, and the two as a pair.
LibraryTensors sound_tensors(const ModelSpec& spec) {
  LibraryTensors tensors;
  for (const std::string prefix : {"ffn/linear/", "block/kv1/linear/"}) {
    for (const NamedShape& wanted : ffn_shapes(spec, FfnSpec::linear())) {
      tensors[prefix + wanted.name] = at::ones(wanted.shape);
    }
  }
  for (const std::string prefix : {"attention/kv1/", "block/kv1/linear/"}) {
    for (const NamedShape& wanted : attention_shapes(spec, AttentionSpec::gqa(1))) {
      tensors[prefix + wanted.name] = at::ones(wanted.shape);
    }
  }
  return tensors;
}

struct BrokenLibrary {
  LayerLibrary load(const LibraryTensors& tensors) {
    write_library_tensors(file, tensors);
    return load_layer_library(file, spec, at::kCPU, at::kFloat);
  }

  test::TempDir folder;
  std::filesystem::path file = folder / "layer-000.safetensors";
  ModelSpec spec = test::tiny_spec(1);
};

TEST(Library, HoldsHalvesAndPairs) {
  BrokenLibrary library;
  const LayerLibrary loaded = library.load(sound_tensors(library.spec));
  EXPECT_EQ(loaded.attention.size(), 1U);
  EXPECT_TRUE(loaded.ffn.contains(FfnSpec::linear()));
  EXPECT_TRUE(loaded.coupled.contains({AttentionSpec::gqa(1), FfnSpec::linear()}));
  // Written twice it is the same file.
  const auto written = [&](const LayerLibrary& layer, const char* name) {
    save_layer_library(library.folder / name, layer);
    return library.folder / name;
  };
  const std::filesystem::path once = written(loaded, "once.safetensors");
  const LayerLibrary again = load_layer_library(once, library.spec, at::kCPU, at::kFloat);
  EXPECT_EQ(read_text_file(written(again, "twice.safetensors")), read_text_file(once));
}

TEST(Library, RefusesBrokenFilesByName) {
  struct Case {
    std::string tensor;   // that is not as it should be
    std::string message;  // after the file's name
    std::vector<std::int64_t> shape = {64, 64};
    at::ScalarType type = at::kFloat;
  };
  const std::vector<Case> cases = {
      {"stray", "tensor stray is no library tensor"},
      {"ffn/w32", "tensor ffn/w32 is no library tensor"},
      {"norm/w32/weight", "tensor norm/w32/weight is no library tensor"},
      {"/w32/weight", "tensor /w32/weight is no library tensor"},
      {"ffn/x32/weight", "FFN variant 'x32'"},
      {"ffn/w0/weight", "FFN variant 'w0'"},
      {"ffn/w99999999999999999999/weight", "FFN variant 'w99999999999999999999'"},
      {"attention/kv/weight", "attention variant 'kv'"},
      {"attention/kv3/weight", "attention variant 'kv3'"},  // 4 heads cannot share 3
      {"block/kv1/weight", "block 'kv1'"},
      {"block/kv1/w/weight", "FFN variant 'w'"},
      {"ffn/w32/weight", "there is no tensor ffn/w32/post_attention_layernorm.weight"},
      {"ffn/linear/mlp.linear_mlp.weight", "another shape", {64, 65}},
  };
  for (const Case& broken : cases) {
    SCOPED_TRACE(broken.tensor);
    BrokenLibrary library;
    LibraryTensors tensors = sound_tensors(library.spec);
    tensors[broken.tensor] = at::ones(broken.shape, broken.type);
    EXPECT_PUZZLE_ERROR((void)library.load(tensors), ErrorKind::kFormat, library.file.string());
    EXPECT_PUZZLE_ERROR((void)library.load(tensors), ErrorKind::kFormat, broken.message);
  }
}

TEST(Library, RefusesFilesThatAreCutShort) {
  BrokenLibrary library;
  (void)library.load(sound_tensors(library.spec));
  const std::string whole = read_text_file(library.file);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    write_text_file(library.file, whole.substr(0, size));
    EXPECT_PUZZLE_ERROR((void)load_layer_library(library.file, library.spec, at::kCPU, at::kFloat),
                        ErrorKind::kFormat, library.file.string());
  }
}

}  // namespace
}  // namespace puzzle
