// What a model says about the choices of an evaluation set: log-likelihoods in nats.
#pragma once

#include <vector>

#include "puzzle/data/eval_batches.h"
#include "puzzle/model/decoder.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class Progress;

// [question][choice]
using QuestionScores = std::vector<std::vector<ChoiceScore>>;

// As plain numbers, and back; `numbers` must be those of this set.
[[nodiscard]] std::vector<double> to_numbers(const QuestionScores& scores);
[[nodiscard]] QuestionScores scores_from_numbers(const EvalSet& set,
                                                 const std::vector<double>& numbers);

// Every choice of the set, on all ranks. Batches go to the ranks in turn.
[[nodiscard]] QuestionScores score_questions(RunContext& context, const ModelWeights& model,
                                             const Geometry& geometry, const EvalSet& set,
                                             Progress& progress);

// The same for models that differ from the parent in one layer: the hidden states that enter it
// are held, so that only the layers from there on run. Memory: the set's padded tokens × D.
class HeldQuestions {
 public:
  // At layer 0. All of these outlive the object.
  HeldQuestions(RunContext& context, const LoadedModel& parent, const EvalSet& set);

  // With `block` in place of layer `layer`, which the states have reached. On all ranks.
  [[nodiscard]] QuestionScores score(const LayerWeights& block, std::int64_t layer) const;
  // Past one layer of the parent.
  void advance(const LayerWeights& layer);

 private:
  struct Batch {
    EvalBatch questions;
    PassContext pass;
    at::Tensor states_BTD;
  };

  RunContext& context_;
  const LoadedModel& parent_;
  const EvalSet& set_;
  std::vector<Batch> batches_;  // of this rank
};

}  // namespace puzzle
