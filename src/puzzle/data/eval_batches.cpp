#include "puzzle/data/eval_batches.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/data/token_split.h"

namespace puzzle {
namespace {

const EvalChoice& choice_of(const EvalSet& set, const EvalRow& row) {
  return set.questions[static_cast<std::size_t>(row.question)]
      .choices[static_cast<std::size_t>(row.choice)];
}

EvalBatch make_eval_batch(const EvalSet& set, std::vector<EvalRow> rows, std::int64_t num_tokens) {
  const std::int64_t num_rows = std::ssize(rows);
  EvalBatch batch{std::move(rows), at::zeros({num_rows, num_tokens}, at::kLong),
                  at::full({num_rows, num_tokens}, kNoLabel, at::kLong)};
  auto* tokens = batch.tokens_BT.mutable_data_ptr<std::int64_t>();
  auto* labels = batch.labels_BT.mutable_data_ptr<std::int64_t>();
  for (const EvalRow& row : batch.rows) {
    const EvalChoice& choice = choice_of(set, row);
    std::copy(choice.ids.begin(), choice.ids.end(), tokens);
    // Position t predicts token t + 1.
    std::copy(choice.ids.begin() + choice.num_context, choice.ids.end(),
              labels + choice.num_context - 1);
    tokens += num_tokens;
    labels += num_tokens;
  }
  return batch;
}

}  // namespace

std::vector<EvalBatch> make_eval_batches(const EvalSet& set, const EvalBatchOptions& options) {
  std::vector<EvalRow> rows;
  for (std::int64_t q = 0; q < std::ssize(set.questions); ++q) {
    for (std::int64_t c = 0; c < std::ssize(set.questions[static_cast<std::size_t>(q)].choices);
         ++c) {
      rows.push_back({q, c});
    }
  }
  const auto length = [&](const EvalRow& row) { return std::ssize(choice_of(set, row).ids); };
  std::stable_sort(rows.begin(), rows.end(),
                   [&](const EvalRow& a, const EvalRow& b) { return length(a) > length(b); });
  std::vector<EvalBatch> batches;
  for (std::size_t begin = 0; begin < rows.size();) {
    const std::int64_t longest = length(rows[begin]);
    const std::int64_t fitting = std::clamp<std::int64_t>(
        options.max_tokens / longest, 1, std::max<std::int64_t>(1, options.max_rows));
    const std::size_t end = std::min(rows.size(), begin + static_cast<std::size_t>(fitting));
    batches.push_back(make_eval_batch(set,
                                      {rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                       rows.begin() + static_cast<std::ptrdiff_t>(end)},
                                      longest));
    begin = end;
  }
  return batches;
}

void add_choice_scores(const EvalBatch& batch, const at::Tensor& nll_BT,
                       const at::Tensor& is_top_BT, std::vector<std::vector<ChoiceScore>>& scores) {
  PUZZLE_CHECK(
      nll_BT.sizes() == batch.labels_BT.sizes() && is_top_BT.sizes() == batch.labels_BT.sizes(),
      "per-token results of another batch");
  const at::Tensor labels = batch.labels_BT.cpu().contiguous();
  const at::Tensor nll = nll_BT.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor is_top = is_top_BT.to(at::kCPU, at::kBool).contiguous();
  const auto* label = labels.const_data_ptr<std::int64_t>();
  const auto* loss = nll.const_data_ptr<double>();
  const auto* top = is_top.const_data_ptr<bool>();
  const std::int64_t num_tokens = labels.size(1);
  for (const EvalRow& row : batch.rows) {
    ChoiceScore score{0.0, true};
    for (std::int64_t t = 0; t < num_tokens; ++t) {
      if (label[t] != kNoLabel) {
        score.log_likelihood -= loss[t];
        score.is_greedy = score.is_greedy && top[t];
      }
    }
    scores[static_cast<std::size_t>(row.question)][static_cast<std::size_t>(row.choice)] = score;
    label += num_tokens;
    loss += num_tokens;
    top += num_tokens;
  }
}

}  // namespace puzzle
