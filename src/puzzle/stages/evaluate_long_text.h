// Long-text questions under one model: strings found in greedy answers, and how likely the right
// answer was.
#pragma once

#include <string>
#include <vector>

#include "puzzle/data/long_text.h"
#include "puzzle/results/rows.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class Progress;

// By sample of a set.
struct LongTextScores {
  std::vector<double> found;        // share of the expected strings in what the model generates
  std::vector<double> answer_nats;  // minus the log-likelihood of the answer in full
};

// As plain numbers, and back; `numbers` must be those of this set.
[[nodiscard]] std::vector<double> to_numbers(const LongTextScores& scores);
[[nodiscard]] LongTextScores scores_from_numbers(const LongTextSet& set,
                                                 const std::vector<double>& numbers);

// On all ranks; texts of one number of tokens run together, and such batches go to the ranks in
// turn. Generation is greedy, ends at an end-of-text token, after the sample's max_new_tokens, or
// when everything expected has been found.
[[nodiscard]] LongTextScores score_long_text(RunContext& context, const ModelWeights& model,
                                             const Geometry& geometry, const Tokenizer& tokenizer,
                                             const LongTextSet& set, Progress& progress);

// "found_fraction" and "answer_nats" with standard errors over samples; with the parent's scores
// also "found_fraction_minus_parent" and "answer_nats_minus_parent", paired by sample, and
// "retention" where the parent found anything.
[[nodiscard]] std::vector<EvaluationRow> long_text_rows(const LongTextSet& set,
                                                        const LongTextScores& scores,
                                                        const LongTextScores* parent,
                                                        const std::string& model,
                                                        const std::string& key);

// Means over the tasks of one length, called `task`; `rows` are those of all its sets, of the model
// and, for "retention", of the parent (none for the parent itself).
[[nodiscard]] std::vector<EvaluationRow> mean_long_text_rows(
    const std::vector<EvaluationRow>& rows, const std::vector<EvaluationRow>& parent_rows,
    const std::string& task, const std::string& model, const std::string& key);

}  // namespace puzzle
