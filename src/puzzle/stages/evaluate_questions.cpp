#include "puzzle/stages/evaluate_questions.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/progress.h"
#include "puzzle/data/eval_batches.h"
#include "puzzle/results/sum_ratio.h"
#include "puzzle/stages/evaluate_text.h"
#include "puzzle/stages/evaluation_rows.h"

namespace puzzle {
namespace {

// Scores of other ranks' questions are zero here, so that a sum over ranks completes them.
void sum_over_ranks(Communicator& communicator, QuestionScores& scores) {
  std::int64_t total = 0;
  for (const auto& question : scores) {
    total += std::ssize(question);
  }
  at::Tensor flat = at::zeros({total, 2}, at::TensorOptions(at::kDouble));
  auto* data = flat.data_ptr<double>();
  std::int64_t k = 0;
  for (const auto& question : scores) {
    for (const ChoiceScore& choice : question) {
      data[2 * k] = choice.log_likelihood;
      data[2 * k++ + 1] = choice.is_greedy ? 1.0 : 0.0;
    }
  }
  communicator.all_reduce_sum(flat);
  data = flat.data_ptr<double>();
  k = 0;
  for (auto& question : scores) {
    for (ChoiceScore& choice : question) {
      choice = {data[2 * k], data[2 * k + 1] > 0.5};
      ++k;
    }
  }
}

}  // namespace

QuestionScores score_questions(RunContext& context, const ModelWeights& model,
                               const Geometry& geometry, const EvalSet& set, Progress& progress) {
  const c10::NoGradGuard no_grad;
  QuestionScores scores(set.questions.size());
  for (std::size_t q = 0; q < scores.size(); ++q) {
    scores[q].resize(set.questions[q].choices.size());
  }
  const auto batches = make_eval_batches(set);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    progress.advance(std::ssize(batches[i].rows));
    if (static_cast<int>(i) % context.communicator.size() != context.communicator.rank()) {
      continue;
    }
    const EvalBatch& batch = batches[i];
    const at::Tensor labels = batch.labels_BT.reshape({-1}).to(context.device);
    // Only the continuation's positions go through the head.
    const at::Tensor wanted = labels.ge(0).nonzero().squeeze(1);
    const at::Tensor hidden =
        batch_hidden(model, geometry, batch.tokens_BT.to(context.device), at::Tensor())
            .index_select(0, wanted);
    const at::Tensor picked = labels.index_select(0, wanted);
    const auto chunked = [&](std::int64_t first, std::int64_t count) {
      return at::linear(hidden.narrow(0, first, count), model.head).to(at::kFloat);
    };
    at::Tensor nll =
        at::zeros({labels.size(0)}, at::TensorOptions(context.device).dtype(at::kFloat));
    at::Tensor is_top =
        at::zeros({labels.size(0)}, at::TensorOptions(context.device).dtype(at::kBool));
    constexpr std::int64_t kChunk = 256;
    for (std::int64_t first = 0; first < wanted.size(0); first += kChunk) {
      const std::int64_t count = std::min(kChunk, wanted.size(0) - first);
      const at::Tensor logits = chunked(first, count);
      const at::Tensor target = picked.narrow(0, first, count);
      const at::Tensor index = wanted.narrow(0, first, count);
      nll.index_copy_(0, index,
                      -at::log_softmax(logits, -1).gather(1, target.unsqueeze(1)).squeeze(1));
      is_top.index_copy_(0, index, logits.argmax(-1).eq(target));
    }
    add_choice_scores(batch, nll.to(at::kCPU).reshape(batch.labels_BT.sizes()),
                      is_top.to(at::kCPU).reshape(batch.labels_BT.sizes()), scores);
  }
  if (context.communicator.size() > 1) {
    sum_over_ranks(context.communicator, scores);
  }
  return scores;
}

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
