// Stage `score`: the damage each variant does on its own in the parent (paper 4.2).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/data/eval_sets.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct ScoreOptions {
  std::string method = "hybrid";   // or "gradient", "replace-one", "downstream"
  std::int64_t num_tokens = 0;     // of the scoring part; 0 = all of it
  std::vector<std::string> pairs;  // blocks scored exactly, as in named_pairs.h
  std::int64_t batch_windows = 8;
  std::int64_t hidden_mib = 512;  // bound on the final hidden states kept at a time
  std::int64_t samples = 4;       // labels drawn per position; gradient and hybrid
  double exact_above = 0.3;       // nats; hybrid
  std::int64_t exact_every = 3;   // layers between two variants that calibrate; hybrid
  double exact_giants = 0.5;      // of a giant token's state; hybrid
  double exact_share = 0.125;     // hybrid; of one full forward pass per candidate
  EvalSetPaths questions;         // downstream
  EvalSetOptions sets;

  void visit(OptionList& list);
};

// The library whose variants are scored (library.h).
struct ScoreInput {
  std::filesystem::path library_folder;
  std::string library_key;
};

struct ScoreResult {
  std::string key;  // of the whole table
  std::int64_t num_candidates = 0;
  std::int64_t num_scored_now = 0;  // the others were there already
};

// What can be said before anything is loaded. Throw Error(kUsage): pairs as pairs_by_layer,
// evaluation sets without their method or the other way round, fewer windows than a standard error
// needs.
void check_score(const ScoreOptions& options, const ModelSpec& parent, const SearchSpace& space);
void check_scoring_windows(std::int64_t num_windows);

// Whether the method makes second-order estimates.
[[nodiscard]] bool is_estimated(const ScoreOptions& options);

// For every layer and variant of the space, with the other half the parent's, and for `pairs`, as
// ScoreRows, by options.method:
//
//   replace-one  exact: mean KL(parent ‖ modified) and top-1 agreement per token, LM-loss increase
//                per token that has a next one to predict. Layers before the variant are the
//                parent's and computed once; the vocabulary projection is streamed in chunks, the
//                parent's once for all candidates of a layer.
//   gradient     second-order estimates of the KL from one walk back (score_gradient.h), for all
//                other blocks of the space as well.
//   hybrid       gradient, then replace-one where estimates are not to be trusted
//                (score_hybrid.h); score_chosen() goes on from there.
//   downstream   accuracy lost on questions (score_downstream.h), `tokens` being questions.
//
// Standard errors treat groups of neighbouring windows as independent (independent_windows.h).
// Tokens are split over ranks. Throws as the checks, Error(kUsage) for a variant that the library
// does not hold, Error(kNumeric) naming the variant for activations that are not finite.
ScoreResult score(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                  const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options);

// After score() with method hybrid: scores exactly those variants of `chosen` that are known as
// estimates, as long as options.exact_share lasts. Returns how many it added to the current scores;
// 0 says that the choice stands, or that the budget is spent. Other methods: always 0.
std::int64_t score_chosen(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                          const SearchSpace& space, const TokenPart& scoring,
                          const ScoreOptions& options, const std::vector<Architecture>& chosen);

}  // namespace puzzle
