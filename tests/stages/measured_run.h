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
    options.rounds = options.local_forwards = 0;  // unless a test asks for them
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

  [[nodiscard]] ModelWeights by_hand(const Architecture& layers) const {
    return LibraryRun::by_hand(library, layers);
  }
  [[nodiscard]] std::vector<NaiveWindow> windows_of(const Architecture& layers) const {
    return naive_windows(parent.weights, by_hand(layers), *validation);
  }
  [[nodiscard]] double naive_kl(const Architecture& layers) const {
    return test::naive_kl(parent.weights, by_hand(layers), *validation);
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
