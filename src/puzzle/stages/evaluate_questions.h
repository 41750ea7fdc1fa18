// Minimal pairs, multiple choice and last words under one model.
#pragma once

#include <string>
#include <vector>

#include "puzzle/data/eval_sets.h"
#include "puzzle/results/rows.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class Progress;

// [question][choice]
using QuestionScores = std::vector<std::vector<ChoiceScore>>;

// Log-likelihood of every choice, in nats, on all ranks. Batches go to the ranks in turn.
[[nodiscard]] QuestionScores score_questions(RunContext& context, const ModelWeights& model,
                                             const Geometry& geometry, const EvalSet& set,
                                             Progress& progress);

// Accuracies with standard errors; with the parent's scores also the paired difference and the
// share of the parent's accuracy that is kept.
[[nodiscard]] std::vector<EvaluationRow> question_rows(const EvalSet& set,
                                                       const QuestionScores& scores,
                                                       const QuestionScores* parent,
                                                       const std::string& model,
                                                       const std::string& key);

}  // namespace puzzle
