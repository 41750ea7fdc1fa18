// Method replace-one: exact scores by the parent with one block replaced (paper 4.2).
#pragma once

#include <cstdint>

#include "puzzle/stages/score_candidates.h"

namespace puzzle {

// Forward work in layer passes over all tokens, for progress and budgets. The head counts as the
// number of layers that cost as much.
class CandidateWork {
 public:
  CandidateWork(const ModelSpec& parent, std::int64_t window);

  // Of an exact score: the layers from the candidate's own on, and the head.
  [[nodiscard]] std::int64_t of(std::int64_t layer) const {
    return num_layers_ - layer + head_layers_;
  }
  [[nodiscard]] std::int64_t of(const LayerCandidates& layers) const;
  [[nodiscard]] std::int64_t whole_model() const { return of(std::int64_t{0}); }
  [[nodiscard]] std::int64_t head() const { return head_layers_; }

 private:
  std::int64_t num_layers_;
  std::int64_t head_layers_;
};

// Walks through the parent's layers and scores what is missing of `layers` in each; rows of a group
// of candidates appear in the database as soon as they are known.
void score_replace_one(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                       const TokenPart& part, const ScoreOptions& options,
                       const LayerCandidates& layers, const LayerCandidates& missing);

}  // namespace puzzle
