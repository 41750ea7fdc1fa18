// A run folder, a tiny parent and a toy corpus for tests of stages that walk through the layers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/toy_corpus.h"
#include "puzzle/base/file.h"
#include "puzzle/base/progress.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/stages/init_library.h"
#include "puzzle/stages/library.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle::test {

inline ModelSpec library_spec() {
  ModelSpec spec = tiny_spec(3);
  spec.vocab_size = kToyVocabSize;
  return spec;
}

inline LoadedModel loaded(const ModelSpec& spec) {
  return {"tiny", "tiny-key", random_model(spec, 7), Geometry(spec),
          std::make_shared<ToyTokenizer>()};
}

// Documents of 24 letters in windows of 16: most windows hold two documents.
struct LibraryRun {
  explicit LibraryRun(const ModelSpec& spec = library_spec(), bool cross_documents = true)
      : corpus({documents()}),
        parent(loaded(spec)),
        db(folder / "run.db"),
        context{folder.path(), db, communicator} {
    set_progress_enabled(false);
    const auto file = corpus.load();
    std::vector<std::int64_t> starts;
    for (std::int64_t i = 0; i < 50; ++i) {
      starts.push_back(16 * i);
    }
    const TokenPart::Layout layout{16, cross_documents};
    calibration.emplace("calibration", file,
                        std::vector<std::int64_t>(starts.begin(), starts.begin() + 38), layout);
    validation.emplace("validation", file,
                       std::vector<std::int64_t>(starts.begin() + 38, starts.end()), layout);
    SearchSpaceOptions space_options;
    space_options.ffn = {"parent", "0.66", "0.34", "linear", "none"};
    space = make_search_space(space_options, parent.weights.spec);
  }
  static std::vector<std::string> documents() {
    std::vector<std::string> texts;
    std::uint32_t state = 1;
    for (int i = 0; i < 40; ++i) {
      std::string text;
      for (int j = 0; j < 24; ++j) {
        state = state * 1664525U + 1013904223U;
        text += static_cast<char>('a' + (state >> 24U) % 26U);
      }
      texts.push_back(text);
    }
    return texts;
  }
  InitLibraryResult make(const InitLibraryOptions& options) {
    return init_library(context, parent, space, *calibration, *validation, options);
  }
  [[nodiscard]] std::string bytes(const InitLibraryResult& result, std::int64_t layer) const {
    return read_text_file(layer_file(result.folder, layer));
  }
  [[nodiscard]] LayerLibrary load(const InitLibraryResult& result, std::int64_t layer) const {
    return load_file(layer_file(result.folder, layer), layer);
  }
  // With every width of the space among the FFNs, also those kept nested.
  [[nodiscard]] LayerLibrary load_file(const std::filesystem::path& file,
                                       std::int64_t layer) const {
    LayerLibrary library = load_layer_library(file, parent.weights.spec, at::kFloat);
    for (const FfnSpec& ffn : space.layers[static_cast<std::size_t>(layer)].ffn) {
      if (ffn.kind == FfnKind::kSwiglu && library.find_nested(ffn.width) != nullptr) {
        library.ffn.emplace(ffn, make_ffn_variant(parent.weights, library, layer, ffn));
      }
    }
    return library;
  }
  // A whole child put together by hand, from the library's files.
  [[nodiscard]] ModelWeights by_hand(const InitLibraryResult& from,
                                     const Architecture& layers) const {
    ModelWeights model = parent.weights;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      LayerWeights& weights = model.layers[i];
      const BlockSpec& own = parent.weights.spec.layers[i];
      LayerLibrary variants;
      if (layers[i] != own && layers[i] != parse_block("none/none")) {
        variants = load(from, static_cast<std::int64_t>(i));
      }
      if (layers[i].attention.kind == AttentionKind::kNone) {
        weights.attention = {};
      } else if (layers[i].attention != own.attention) {
        weights.attention = variants.attention.at(layers[i].attention);
      }
      if (layers[i].ffn.kind == FfnKind::kNone) {
        weights.ffn = {};
      } else if (layers[i].ffn != own.ffn) {
        weights.ffn = variants.ffn.at(layers[i].ffn);
      }
      model.spec.layers[i] = layers[i];
    }
    return model;
  }

  ToyCorpus corpus;
  TempDir folder;
  LoadedModel parent;
  RunDb db;
  SingleCommunicator communicator;
  RunContext context;
  std::optional<TokenPart> calibration, validation;
  SearchSpace space;
};

}  // namespace puzzle::test
