// init-library: weights for every variant of the search space, without training.
//
// Walks through the parent layer by layer with the hidden states of all calibration tokens, gathers
// the sums of each layer, solves for its variants and writes library/<key>/layer-NNN.safetensors.
// Each variant's error on validation tokens goes into run.db as a VariantRow: error_before is
// Σ‖y − ŷ‖² / Σ‖y‖² of its sub-block's output without residual, on the parent's own inputs (1 = as
// bad as leaving the sub-block out), loss_before the same under the token weights (least squares
// only).
//
// A finished layer (its record and its file) is not made again. Tokens are split over ranks and the
// sums all-reduced, so the result does not depend on the number of ranks but for rounding.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/base/options.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

struct InitLibraryOptions {
  std::string init = "least-squares";
  std::string token_weights = "damped";
  double lambda = 1e-3;
  std::int64_t batch_tokens = 4096;
  std::int64_t state_memory_mib = 4096;  // of held states; the rest goes to disk (held_states.h)
  std::vector<std::int64_t> layers = {};

  void visit(OptionList& list) {
    list.add(
        "init", init, Choices{{"least-squares", "paper"}},
        "How variants get their first weights: closed-form fits, or the Puzzle paper's rules.");
    list.add("token_weights", token_weights, Choices{{"none", "inverse", "damped"}},
             "What a token h counts in the fits (h = output of the parent's block): 1, 1/|h|^2, or "
             "1/max(|h|^2, median); least-squares only.");
    list.add("lambda", lambda, Range<double>{0.0, 10.0},
             "Ridge of the fits, relative to the mean squared feature; least-squares only.");
    list.add("batch_tokens", batch_tokens, Range<std::int64_t>{1, 1 << 24},
             "Tokens that go through a layer at once.");
    list.add("state_memory_mib", state_memory_mib, Range<std::int64_t>{0, 1 << 30},
             "MiB of hidden states held in memory by each process; the rest goes to a file in the "
             "run folder.");
    list.add("layers", layers, Range<std::int64_t>{0, kMaxLayers - 1},
             "Only these layers (0-based); empty: all.");
  }
};

struct InitLibraryResult {
  std::string key;               // of the library
  std::filesystem::path folder;  // library_folder(run, key)
  std::int64_t layers_made = 0;
  std::int64_t layers_found = 0;  // finished by an earlier run
};

// Whose rows readers of run.db are to see as the current ones (run_db.h).
enum class LibraryRole {
  kRun,       // the run's own library
  kBaseline,  // another one, for comparison; its rows are kept but not current
};

// What the library's weights depend on; `options.layers` is no part of it.
[[nodiscard]] std::string init_library_key(const LoadedModel& parent, const SearchSpace& space,
                                           const TokenPart& calibration,
                                           const InitLibraryOptions& options);

// Throws Error(kUsage) for an empty part or a layer that does not exist, Error(kNumeric) naming the
// layer for activations that are not finite, Error(kInterrupted), Error(kIo), also where disk or
// memory do not suffice for the states.
[[nodiscard]] InitLibraryResult init_library(RunContext& context, const LoadedModel& parent,
                                             const SearchSpace& space, const TokenPart& calibration,
                                             const TokenPart& validation,
                                             const InitLibraryOptions& options,
                                             LibraryRole role = LibraryRole::kRun);

}  // namespace puzzle
