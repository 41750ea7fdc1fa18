// Minimal pairs, multiple choice and last words under one model: the rows of an evaluation.
#pragma once

#include <string>
#include <vector>

#include "puzzle/data/eval_sets.h"
#include "puzzle/results/rows.h"
#include "puzzle/stages/question_scores.h"

namespace puzzle {

// Accuracies with standard errors; with the parent's scores also the paired difference and the
// share of the parent's accuracy that is kept.
[[nodiscard]] std::vector<EvaluationRow> question_rows(const EvalSet& set,
                                                       const QuestionScores& scores,
                                                       const QuestionScores* parent,
                                                       const std::string& model,
                                                       const std::string& key);

}  // namespace puzzle
