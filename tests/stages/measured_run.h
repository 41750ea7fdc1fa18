// A run with a library, made-up scores and budgets in parameters: for searches that measure. Whole
// children put together by hand, their KL the slow way.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/arch/cost.h"
#include "puzzle/stages/search.h"
#include "stages/made_up_scores.h"
#include "stages/scored_run.h"

namespace puzzle::test {

inline ModelSpec measured_spec(std::int64_t layers) {
  ModelSpec spec = tiny_spec(layers);
  spec.vocab_size = kToyVocabSize;
  return spec;
}

struct MeasuredRun : LibraryRun {
  explicit MeasuredRun(std::int64_t layers = 3, bool cross_documents = true,
                       bool with_library = true)
      : LibraryRun(measured_spec(layers), cross_documents) {
    if (with_library) {
      library = make({});
    }
    scores = made_up_scores(space.layers[0], parent.weights.spec.layers[0], layers, 11);
    db.put(scores);
    options.types = "f32";
    options.budgets = {"parameters <= 0.7x"};
    options.batch_windows = 5;
  }

  [[nodiscard]] ChildSource source() const {
    return {.library_folder = library.folder,
            .library_key = library.key,
            .validation = &*validation,
            .scoring = &*calibration};
  }
  [[nodiscard]] SearchResult run(RunContext& where) const {
    return search(where, parent, space, scenario, {}, options, source());
  }
  SearchResult run() { return run(context); }

  // From the library's files, block by block.
  [[nodiscard]] ModelWeights by_hand(const Architecture& layers) const {
    ModelWeights model = parent.weights;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      LayerWeights& weights = model.layers[i];
      const BlockSpec& own = parent.weights.spec.layers[i];
      LayerLibrary variants;
      if (layers[i] != own && layers[i] != parse_block("none/none")) {
        variants = load(library, static_cast<std::int64_t>(i));
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
  [[nodiscard]] std::vector<NaiveWindow> windows_of(const Architecture& layers) const {
    return naive_windows(parent.weights, by_hand(layers), *validation);
  }
  [[nodiscard]] double naive_kl(const Architecture& layers) const {
    double sum = 0.0;
    for (const NaiveWindow& window : windows_of(layers)) {
      sum += window.kl;
    }
    return sum / static_cast<double>(validation->num_tokens());
  }
  [[nodiscard]] double parameters(const Architecture& layers) const {
    return static_cast<double>(
        model_cost(with_layers(parent.weights.spec, layers), ExportTarget::kNative, WeightTypes{})
            .parameters);
  }
  [[nodiscard]] const Architecture& own_layers() const { return parent.weights.spec.layers; }

  InitLibraryResult library;
  std::vector<ScoreRow> scores;
  Scenario scenario;
  SearchOptions options;
};

}  // namespace puzzle::test
