// Stage `score`: the damage each variant does on its own, by replacing one block of the parent
// (DESIGN 5; paper 4.2).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct ScoreOptions {
  std::string method = "replace-one";
  std::int64_t num_tokens = 0;     // of the scoring part; 0 = all of it
  std::vector<std::string> pairs;  // blocks scored exactly: "kv1/w768" in all layers, "7:kv1/w768"
  std::int64_t batch_windows = 8;
  std::int64_t hidden_mib = 512;  // bound on the final hidden states kept at a time

  void visit(OptionList& list);
};

struct ScoreInput {
  std::filesystem::path library_folder;
  std::string library_key;
};

struct ScoreResult {
  std::string key;  // of the whole table
  std::int64_t num_candidates = 0;
  std::int64_t num_scored_now = 0;     // the others were there already
  double seconds_per_candidate = 0.0;  // of those scored now
};

// For every layer and variant of the space, with the other half the parent's: mean KL(parent ‖
// modified), LM-loss increase and top-1 agreement per token, as ScoreRows. Layers before the
// variant are the parent's and computed once; the vocabulary projection is streamed in chunks, the
// parent's once for all candidates of a layer. Standard errors treat windows as independent, tokens
// within one as not. Tokens are split over ranks.
ScoreResult score(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                  const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options);

}  // namespace puzzle
