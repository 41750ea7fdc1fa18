#include "puzzle/stages/library.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
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
    return load_layer_library(file, spec, at::kFloat);
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
  const LayerLibrary again = load_layer_library(once, library.spec, at::kFloat);
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
      {"ffn/linear/mlp.linear_mlp.weight", "is [64, 65], expected [64, 64]", {64, 65}},
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

// Widths up to 40 from one start, of which 16 and 32 have been trained.
LayerLibrary nested_library(const ModelSpec& spec) {
  at::Generator generator = at::detail::createCPUGenerator(5);
  const auto make = [&] {
    NestedFfn nested;
    nested.whole = make_ffn(spec, FfnSpec::swiglu(40), [&](const NamedShape& wanted) {
      return at::randn(wanted.shape, generator, at::TensorOptions(at::kFloat));
    });
    nested.basis = at::randn({40 * 41 / 2}, generator, at::TensorOptions(at::kDouble));
    nested.whole.down = nested.whole.down.to(at::kDouble);
    return nested;
  };
  LayerLibrary library;
  library.nested = make();
  library.trained = {make(), {16, 32}};
  return library;
}

TEST(Library, WidthsComeFromTheirNestedFfn) {
  BrokenLibrary broken;
  const LayerLibrary library = nested_library(broken.spec);
  save_layer_library(broken.file, library);
  const LayerLibrary loaded = load_layer_library(broken.file, broken.spec, at::kFloat);
  const ModelWeights parent = random_model(broken.spec, 1);
  for (const std::int64_t width : {8, 16, 32, 40}) {
    const bool is_trained = width == 16 || width == 32;
    const FfnWeights want =
        ffn_of_width(is_trained ? library.trained->nested : *library.nested, width);
    const FfnWeights got = make_ffn_variant(parent, loaded, 0, FfnSpec::swiglu(width));
    EXPECT_TRUE(got.gate.equal(want.gate)) << width;
    EXPECT_TRUE(got.down.equal(want.down)) << width;
  }
  EXPECT_PUZZLE_ERROR((void)make_ffn_variant(parent, loaded, 0, FfnSpec::swiglu(41)),
                      ErrorKind::kUsage, "layer 0 has no variant ffn/w41");
  // One of its own is preferred.
  LayerLibrary own = loaded;
  own.ffn[FfnSpec::swiglu(16)] = ffn_of_width(*loaded.nested, 16);
  EXPECT_TRUE(make_ffn_variant(parent, own, 0, FfnSpec::swiglu(16))
                  .gate.equal(loaded.nested->whole.gate.narrow(0, 0, 16)));
}

TEST(Library, RefusesBrokenNestedWidths) {
  BrokenLibrary broken;
  const auto load = [&] { return load_layer_library(broken.file, broken.spec, at::kFloat); };
  const auto refused = [&](const char* what) {
    EXPECT_PUZZLE_ERROR((void)load(), ErrorKind::kFormat, what);
  };
  LayerLibrary library = nested_library(broken.spec);
  library.trained->widths = {32, 16};
  save_layer_library(broken.file, library);
  refused("puzzle.trained_widths is '32,16'");
  library.trained->widths = {41};
  save_layer_library(broken.file, library);
  refused("expected rising widths up to 40");
  library = nested_library(broken.spec);
  library.nested->basis = library.nested->basis.narrow(0, 0, 100).clone();
  save_layer_library(broken.file, library);
  refused("nested/w40/mlp.down_basis is [100], expected [820]");
  write_library_tensors(broken.file, {{"nested/linear/mlp.linear_mlp.weight", at::ones({4})}});
  refused("expected a width");
}

TEST(Library, RefusesFilesThatAreCutShort) {
  BrokenLibrary library;
  (void)library.load(sound_tensors(library.spec));
  const std::string whole = read_text_file(library.file);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    write_text_file(library.file, whole.substr(0, size));
    EXPECT_PUZZLE_ERROR((void)load_layer_library(library.file, library.spec, at::kFloat),
                        ErrorKind::kFormat, library.file.string());
  }
}

}  // namespace
}  // namespace puzzle
