#include "puzzle/stages/score_downstream.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/evaluate_questions.h"
#include "puzzle/stages/question_scores.h"
#include "puzzle/stages/score_exact.h"

namespace puzzle {
namespace {

constexpr std::int64_t kQuestionTokens = 32;  // about; progress alone depends on it

std::int64_t num_questions(const std::vector<EvalSet>& sets) {
  std::int64_t count = 0;
  for (const EvalSet& set : sets) {
    count += std::ssize(set.questions);
  }
  return count;
}

// Of the row that compares a model with the parent on one set.
EvaluationRow paired_difference(const std::vector<EvaluationRow>& rows) {
  const auto found = std::ranges::find(rows, "accuracy_minus_parent", &EvaluationRow::metric);
  PUZZLE_CHECK(found != rows.end(), "{} rows without a paired difference", rows.size());
  return *found;
}

void check_finite(const QuestionScores& scores, const Candidate& candidate) {
  for (const auto& question : scores) {
    for (const ChoiceScore& choice : question) {
      if (!std::isfinite(choice.log_likelihood)) {
        fail(ErrorKind::kNumeric, "score: layer {}, {}: the block gives non-finite activations",
             candidate.layer, candidate.block.name());
      }
    }
  }
}

class DownstreamScorer {
 public:
  DownstreamScorer(RunContext& context, const LoadedModel& parent, const std::vector<EvalSet>& sets)
      : sets_(sets) {
    for (const EvalSet& set : sets) {
      held_.emplace_back(context, parent, set);
      parent_scores_.push_back(held_.back().score(parent.weights.layers.front(), 0));
    }
  }

  // Of a candidate for the layer that the states have reached.
  [[nodiscard]] ScoreRow row(const Candidate& candidate, const LayerWeights& block) const {
    double drop = 0.0;
    double variance = 0.0;
    for (std::size_t s = 0; s < sets_.size(); ++s) {
      const QuestionScores scores = held_[s].score(block, candidate.layer);
      check_finite(scores, candidate);
      const EvaluationRow difference = paired_difference(question_rows(
          sets_[s], scores, &parent_scores_[s], candidate.block.name(), candidate.key));
      drop -= difference.value;
      variance += difference.standard_error * difference.standard_error;
    }
    const auto count = static_cast<double>(sets_.size());
    return {.key = candidate.key,
            .layer = candidate.layer,
            .block = candidate.block.name(),
            .method = "downstream",
            .metric = "downstream",
            .value = drop / count,
            .standard_error = std::sqrt(variance) / count,
            .tokens = num_questions(sets_)};
  }

  void advance(const LayerWeights& layer) {
    for (HeldQuestions& held : held_) {
      held.advance(layer);
    }
  }

 private:
  const std::vector<EvalSet>& sets_;
  std::vector<HeldQuestions> held_;  // by set
  std::vector<QuestionScores> parent_scores_;
};

}  // namespace

std::vector<EvalSet> load_score_sets(const ScoreOptions& options, const Tokenizer& tokenizer) {
  std::vector<EvalSet> sets;
  for (const EvalSetPath& set : options.questions.all()) {
    sets.push_back(load_eval_set(set.kind, set.path, tokenizer, options.sets));
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
  const CandidateWork work(parent.weights.spec, kQuestionTokens);
  Progress progress("score", work.whole_model() + work.of(missing), "layer passes");
  DownstreamScorer scorer(context, parent, sets);
  progress.advance(work.whole_model());
  const std::size_t end = end_of_candidates(missing);
  for (std::size_t i = 0; i < end; ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if (!missing[i].empty()) {
      const LayerLibrary library = find_layer_library(input.library_folder, layer, parent.weights);
      for (const Candidate& candidate : missing[i]) {
        const ScoreRow row =
            scorer.row(candidate, make_block(parent.weights, library, layer, candidate.block));
        if (context.communicator.is_first()) {
          context.db.put_one(row);
        }
        progress.advance(work.of(layer), fmt::format("layer {}", layer));
      }
    }
    if (i + 1 < end) {
      scorer.advance(parent.weights.layers[i]);
    }
  }
}

}  // namespace puzzle
