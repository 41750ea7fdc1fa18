#include "puzzle/stages/evaluate_questions.h"

#include "puzzle/results/sum_ratio.h"
#include "puzzle/stages/evaluation_rows.h"

namespace puzzle {

std::vector<EvaluationRow> question_rows(const EvalSet& set, const QuestionScores& scores,
                                         const QuestionScores* parent, const std::string& model,
                                         const std::string& key) {
  EvaluationRowWriter writer(key, model, set.name);
  const EvalSummary summary = summarize_scores(set, scores);
  writer.add("accuracy", summary.accuracy, summary.accuracy_stderr, summary.num_questions);
  if (set.kind == EvalKind::kMultipleChoice) {
    writer.add("accuracy_norm", summary.accuracy_per_byte, summary.accuracy_per_byte_stderr,
               summary.num_questions);
  }
  writer.add("answer_nats", summary.answer_nats, summary.answer_nats_stderr, summary.num_questions);
  if (parent != nullptr) {
    const EvalSummary before = summarize_scores(set, *parent);
    const auto add_less = [&](const std::string& metric, const std::vector<double>& own,
                              const std::vector<double>& parents) {
      const SampleMean less = mean_of_samples(differences(own, parents));
      writer.add(metric + "_minus_parent", less.mean, less.standard_error, summary.num_questions);
      return less;
    };
    const SampleMean less = add_less("accuracy", summary.right, before.right);
    if (set.kind == EvalKind::kMultipleChoice) {
      (void)add_less("accuracy_norm", summary.right_per_byte, before.right_per_byte);
    }
    (void)add_less("answer_nats", summary.nats, before.nats);
    if (before.accuracy > 0) {
      writer.add(
          "retention", summary.accuracy / before.accuracy,
          ratio_error(summary.accuracy, before.accuracy,
                      {summary.accuracy_stderr, before.accuracy_stderr, less.standard_error}),
          summary.num_questions);
    }
  }
  return writer.rows();
}

}  // namespace puzzle
