#include "puzzle/stages/question_scores.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {
namespace {

QuestionScores empty_scores(const EvalSet& set) {
  QuestionScores scores(set.questions.size());
  for (std::size_t q = 0; q < scores.size(); ++q) {
    scores[q].resize(set.questions[q].choices.size());
  }
  return scores;
}

// By choice: log-likelihood, and 1 for greedy.
void fill(QuestionScores& scores, const std::vector<double>& numbers) {
  auto next = numbers.begin();
  for (auto& question : scores) {
    for (ChoiceScore& choice : question) {
      choice.log_likelihood = *next++;
      choice.is_greedy = *next++ > 0.5;
    }
  }
}

// Positions 0, 1, … and no mask (eval_batches.h).
PassContext question_pass(const Geometry& geometry, const at::Tensor& x_BTD) {
  return make_pass(geometry, x_BTD.size(1), x_BTD.scalar_type(), x_BTD.device());
}

// From the final hidden states of a batch, [B·T, D]; only the continuations' positions go through
// the head.
void add_batch_scores(const EvalBatch& batch, const at::Tensor& hidden_ND, const at::Tensor& head,
                      QuestionScores& scores) {
  const at::Tensor labels = batch.labels_BT.reshape({-1}).to(hidden_ND.device());
  const at::Tensor wanted = labels.ge(0).nonzero().squeeze(1);
  const at::Tensor hidden = hidden_ND.index_select(0, wanted);
  const at::Tensor picked = labels.index_select(0, wanted);
  at::Tensor nll = at::zeros({labels.size(0)}, hidden.options().dtype(at::kFloat));
  at::Tensor is_top = at::zeros({labels.size(0)}, hidden.options().dtype(at::kBool));
  constexpr std::int64_t kChunk = 256;
  for (std::int64_t first = 0; first < wanted.size(0); first += kChunk) {
    const std::int64_t count = std::min(kChunk, wanted.size(0) - first);
    const at::Tensor logits = at::linear(hidden.narrow(0, first, count), head).to(at::kFloat);
    const at::Tensor target = picked.narrow(0, first, count);
    const at::Tensor index = wanted.narrow(0, first, count);
    nll.index_copy_(0, index,
                    -at::log_softmax(logits, -1).gather(1, target.unsqueeze(1)).squeeze(1));
    is_top.index_copy_(0, index, logits.argmax(-1).eq(target));
  }
  add_choice_scores(batch, nll.to(at::kCPU).reshape(batch.labels_BT.sizes()),
                    is_top.to(at::kCPU).reshape(batch.labels_BT.sizes()), scores);
}

// Scores of other ranks' questions are zero here, so that a sum over ranks completes them.
void complete_over_ranks(Communicator& communicator, QuestionScores& scores) {
  if (communicator.size() == 1) {
    return;
  }
  std::vector<double> numbers = to_numbers(scores);
  sum_over_ranks(numbers, communicator);
  fill(scores, numbers);
}

bool is_mine(std::size_t batch, const Communicator& communicator) {
  return static_cast<int>(batch) % communicator.size() == communicator.rank();
}

}  // namespace

std::vector<double> to_numbers(const QuestionScores& scores) {
  std::vector<double> numbers;
  for (const auto& question : scores) {
    for (const ChoiceScore& choice : question) {
      numbers.insert(numbers.end(), {choice.log_likelihood, choice.is_greedy ? 1.0 : 0.0});
    }
  }
  return numbers;
}

QuestionScores scores_from_numbers(const EvalSet& set, const std::vector<double>& numbers) {
  QuestionScores scores = empty_scores(set);
  PUZZLE_CHECK(to_numbers(scores).size() == numbers.size(), "{}: {} numbers", set.name,
               numbers.size());
  fill(scores, numbers);
  return scores;
}

QuestionScores score_questions(RunContext& context, const ModelWeights& model,
                               const Geometry& geometry, const EvalSet& set, Progress& progress) {
  const c10::NoGradGuard no_grad;
  QuestionScores scores = empty_scores(set);
  const std::vector<EvalBatch> batches = make_eval_batches(set);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    progress.advance(std::ssize(batches[i].rows));
    if (is_mine(i, context.communicator)) {
      const at::Tensor x = embed(model, batches[i].tokens_BT.to(context.device));
      add_batch_scores(batches[i], final_rows(model, geometry, x, question_pass(geometry, x)),
                       model.head, scores);
    }
  }
  complete_over_ranks(context.communicator, scores);
  return scores;
}

HeldQuestions::HeldQuestions(RunContext& context, const LoadedModel& parent, const EvalSet& set)
    : context_(context), parent_(parent), set_(set) {
  const c10::NoGradGuard no_grad;
  std::vector<EvalBatch> batches = make_eval_batches(set);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    if (is_mine(i, context.communicator)) {
      const at::Tensor x = embed(parent.weights, batches[i].tokens_BT.to(context.device));
      batches_.push_back({std::move(batches[i]), question_pass(parent.geometry, x), x});
    }
  }
}

QuestionScores HeldQuestions::score(const LayerWeights& block, std::int64_t layer) const {
  const c10::NoGradGuard no_grad;
  QuestionScores scores = empty_scores(set_);
  for (const Batch& batch : batches_) {
    const at::Tensor x = apply_layer(block, parent_.geometry, batch.states_BTD, batch.pass);
    add_batch_scores(batch.questions,
                     final_rows(parent_.weights, parent_.geometry, x, batch.pass, layer + 1),
                     parent_.weights.head, scores);
  }
  complete_over_ranks(context_.communicator, scores);
  return scores;
}

void HeldQuestions::advance(const LayerWeights& layer) {
  const c10::NoGradGuard no_grad;
  for (Batch& batch : batches_) {
    batch.states_BTD = apply_layer(layer, parent_.geometry, batch.states_BTD, batch.pass);
  }
}

}  // namespace puzzle
