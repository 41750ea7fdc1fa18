#include "puzzle/stages/score_downstream.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/evaluate_questions.h"

namespace puzzle {
namespace {

std::int64_t num_choices(const std::vector<EvalSet>& sets) {
  std::int64_t count = 0;
  for (const EvalSet& set : sets) {
    for (const EvalQuestion& question : set.questions) {
      count += std::ssize(question.choices);
    }
  }
  return count;
}

std::int64_t num_questions(const std::vector<EvalSet>& sets) {
  std::int64_t count = 0;
  for (const EvalSet& set : sets) {
    count += std::ssize(set.questions);
  }
  return count;
}

// Of the row that compares a model with the parent on one set.
const EvaluationRow& paired_difference(const std::vector<EvaluationRow>& rows) {
  const auto found = std::ranges::find(rows, "accuracy_minus_parent", &EvaluationRow::metric);
  PUZZLE_CHECK(found != rows.end(), "{} rows without a paired difference", rows.size());
  return *found;
}

ScoreRow downstream_row(RunContext& context, const LoadedModel& parent,
                        const ModelWeights& modified, const std::vector<EvalSet>& sets,
                        const std::vector<QuestionScores>& parent_scores,
                        const Candidate& candidate, Progress& progress) {
  double drop = 0.0;
  double variance = 0.0;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const QuestionScores scores =
        score_questions(context, modified, parent.geometry, sets[s], progress);
    const std::vector<EvaluationRow> rows =
        question_rows(sets[s], scores, &parent_scores[s], candidate.block.name(), candidate.key);
    const EvaluationRow& difference = paired_difference(rows);
    drop -= difference.value;
    variance += difference.standard_error * difference.standard_error;
  }
  const auto count = static_cast<double>(sets.size());
  return {.key = candidate.key,
          .layer = candidate.layer,
          .block = candidate.block.name(),
          .method = "downstream",
          .metric = "downstream",
          .value = drop / count,
          .standard_error = std::sqrt(variance) / count,
          .tokens = num_questions(sets)};
}

}  // namespace

std::vector<EvalSet> load_score_sets(const ScoreOptions& options, const Tokenizer& tokenizer) {
  std::vector<EvalSet> sets;
  for (const auto& [kind, paths] : {std::pair{EvalKind::kMinimalPairs, &options.minimal_pairs},
                                    std::pair{EvalKind::kMultipleChoice, &options.multiple_choice},
                                    std::pair{EvalKind::kLastWord, &options.last_word}}) {
    for (const std::string& path : *paths) {
      sets.push_back(load_eval_set(kind, path, tokenizer, options.sets));
    }
  }
  return sets;
}

std::string content_key_of(const std::vector<EvalSet>& sets) {
  KeyBuilder key;
  for (const EvalSet& set : sets) {
    key.add("set", set.content_key);
  }
  return key.key();
}

void score_downstream(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                      const std::vector<EvalSet>& sets, const LayerCandidates& missing) {
  Progress progress("score", num_choices(sets) * (num_candidates(missing) + 1), "choices");
  std::vector<QuestionScores> parent_scores;
  for (const EvalSet& set : sets) {
    parent_scores.push_back(
        score_questions(context, parent.weights, parent.geometry, set, progress));
  }
  for (const std::vector<Candidate>& candidates : missing) {
    if (candidates.empty()) {
      continue;
    }
    const std::int64_t layer = candidates.front().layer;
    const LayerLibrary library = load_scored_layer(context, parent, input.library_folder, layer);
    for (const Candidate& candidate : candidates) {
      ModelWeights modified = parent.weights;  // shares the tensors
      modified.layers[static_cast<std::size_t>(layer)] =
          make_block(parent.weights, library, layer, candidate.block);
      const ScoreRow row =
          downstream_row(context, parent, modified, sets, parent_scores, candidate, progress);
      if (context.communicator.is_first()) {
        context.db.put_one(row);
      }
    }
  }
}

}  // namespace puzzle
