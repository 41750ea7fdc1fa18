#include "puzzle/data/eval_batches.h"

#include <map>
#include <utility>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

// Question q has two choices of q + 2 and q + 3 tokens, whose ids tell where they are from.
EvalSet make_set(std::int64_t num_questions) {
  EvalSet set;
  for (std::int64_t q = 0; q < num_questions; ++q) {
    EvalQuestion question;
    for (std::int64_t c = 0; c < 2; ++c) {
      EvalChoice choice;
      for (std::int64_t t = 0; t < q + 2 + c; ++t) {
        choice.ids.push_back(static_cast<std::int32_t>(1000 * q + 100 * c + t));
      }
      choice.num_context = 1 + q / 2;
      question.choices.push_back(choice);
    }
    set.questions.push_back(question);
  }
  return set;
}

TEST(EvalBatches, HoldEveryChoiceOnceWithItsLabels) {
  const EvalSet set = make_set(7);
  std::map<std::pair<std::int64_t, std::int64_t>, int> seen;
  std::int64_t longest_before = 100;
  for (const EvalBatch& batch : make_eval_batches(set, {.max_rows = 3, .max_tokens = 16})) {
    const std::int64_t num_tokens = batch.tokens_BT.size(1);
    EXPECT_LE(std::ssize(batch.rows), 3);
    EXPECT_LE(std::ssize(batch.rows) * num_tokens, 16);
    EXPECT_LE(num_tokens, longest_before);
    longest_before = num_tokens;
    for (std::int64_t b = 0; b < std::ssize(batch.rows); ++b) {
      const EvalRow row = batch.rows[static_cast<std::size_t>(b)];
      ++seen[{row.question, row.choice}];
      const auto& choice = set.questions[static_cast<std::size_t>(row.question)]
                               .choices[static_cast<std::size_t>(row.choice)];
      const std::int64_t length = std::ssize(choice.ids);
      for (std::int64_t t = 0; t < num_tokens; ++t) {
        const std::int64_t id = 1000 * row.question + 100 * row.choice + t;
        const bool has_label = t + 1 < length && t + 1 >= choice.num_context;
        EXPECT_EQ(batch.tokens_BT[b][t].item<std::int64_t>(), t < length ? id : 0);
        EXPECT_EQ(batch.labels_BT[b][t].item<std::int64_t>(), has_label ? id + 1 : -100);
      }
    }
  }
  EXPECT_EQ(seen.size(), 14U);
  for (const auto& [row, count] : seen) {
    EXPECT_EQ(count, 1);
  }
}

TEST(EvalBatches, GiveARowThatIsTooLongABatchOfItsOwn) {
  const EvalSet set = make_set(3);
  for (const EvalBatch& batch : make_eval_batches(set, {.max_rows = 8, .max_tokens = 1})) {
    EXPECT_EQ(batch.rows.size(), 1U);
  }
}

TEST(EvalBatches, AddUpTheContinuationOnly) {
  const EvalSet set = make_set(5);
  std::vector<std::vector<ChoiceScore>> scores(5, std::vector<ChoiceScore>(2));
  for (const EvalBatch& batch : make_eval_batches(set, {.max_rows = 4})) {
    // A token's loss is its label ÷ 8 (exact in fp32), and 1e6 where there is none; only labels of
    // second choices are the most likely token, but not the last of question 3.
    const at::Tensor has_label = batch.labels_BT.ne(-100);
    const at::Tensor nll =
        at::where(has_label, batch.labels_BT.to(at::kFloat).div(8), at::full({}, 1e6F, at::kFloat));
    const at::Tensor is_top =
        batch.labels_BT.remainder(1000).ge(100).logical_and(batch.labels_BT.ne(3000 + 100 + 5));
    add_choice_scores(batch, nll, is_top, scores);
  }
  for (std::int64_t q = 0; q < 5; ++q) {
    for (std::int64_t c = 0; c < 2; ++c) {
      double expected = 0;
      for (std::int64_t t = 1 + q / 2; t < q + 2 + c; ++t) {
        expected -= static_cast<double>(1000 * q + 100 * c + t) / 8.0;
      }
      const ChoiceScore& score = scores[static_cast<std::size_t>(q)][static_cast<std::size_t>(c)];
      EXPECT_DOUBLE_EQ(score.log_likelihood, expected);
      EXPECT_EQ(score.is_greedy, c == 1 && q != 3) << q << " " << c;
    }
  }
}

}  // namespace
}  // namespace puzzle
