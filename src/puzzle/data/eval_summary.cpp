#include <cmath>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/data/eval_sets.h"

namespace puzzle {
namespace {

template <class Value>
bool answer_is_highest(const EvalQuestion& question, Value&& value) {
  std::size_t best = 0;
  for (std::size_t c = 1; c < question.choices.size(); ++c) {
    best = value(c) > value(best) ? c : best;
  }
  return static_cast<std::int64_t>(best) == question.answer;
}

}  // namespace

SampleMean mean_of_samples(const std::vector<double>& samples) {
  const auto count = static_cast<double>(samples.size());
  if (samples.empty()) {
    return {};
  }
  double sum = 0.0;
  for (const double sample : samples) {
    sum += sample;
  }
  const double mean = sum / count;
  double squares = 0.0;
  for (const double sample : samples) {
    squares += (sample - mean) * (sample - mean);
  }
  const bool has_error = samples.size() > 1;
  return {mean, has_error ? std::sqrt(squares / (count - 1.0) / count) : 0.0};
}

EvalSummary summarize_scores(const EvalSet& set,
                             const std::vector<std::vector<ChoiceScore>>& scores) {
  PUZZLE_CHECK(scores.size() == set.questions.size(), "scores of {} questions for {}",
               scores.size(), set.questions.size());
  std::vector<double> right;
  std::vector<double> right_per_byte;
  std::vector<double> answer_nats;
  for (std::size_t q = 0; q < scores.size(); ++q) {
    const EvalQuestion& question = set.questions[q];
    const std::vector<ChoiceScore>& choices = scores[q];
    PUZZLE_CHECK(choices.size() == question.choices.size(), "question {}: {} scores for {}", q,
                 choices.size(), question.choices.size());
    const ChoiceScore& answer = choices[static_cast<std::size_t>(question.answer)];
    answer_nats.push_back(-answer.log_likelihood);
    if (set.kind == EvalKind::kLastWord) {
      right.push_back(answer.is_greedy ? 1.0 : 0.0);
      right_per_byte.push_back(0.0);
      continue;
    }
    const auto total = [&](std::size_t c) { return choices[c].log_likelihood; };
    const auto per_byte = [&](std::size_t c) {
      return total(c) / static_cast<double>(
                            std::max<std::int64_t>(1, question.choices[c].num_continuation_bytes));
    };
    right.push_back(answer_is_highest(question, total) ? 1.0 : 0.0);
    right_per_byte.push_back(answer_is_highest(question, per_byte) ? 1.0 : 0.0);
  }
  const SampleMean accuracy = mean_of_samples(right);
  const SampleMean accuracy_per_byte = mean_of_samples(right_per_byte);
  const SampleMean nats = mean_of_samples(answer_nats);
  return {.num_questions = std::ssize(set.questions),
          .accuracy = accuracy.mean,
          .accuracy_stderr = accuracy.standard_error,
          .accuracy_per_byte = accuracy_per_byte.mean,
          .accuracy_per_byte_stderr = accuracy_per_byte.standard_error,
          .answer_nats = nats.mean,
          .answer_nats_stderr = nats.standard_error,
          .right = std::move(right),
          .right_per_byte = std::move(right_per_byte),
          .nats = std::move(answer_nats)};
}

}  // namespace puzzle
