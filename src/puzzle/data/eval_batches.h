// The choices of an evaluation set as padded batches of similar length.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/data/eval_sets.h"

namespace puzzle {

struct EvalRow {
  std::int64_t question = 0;
  std::int64_t choice = 0;
};

// Shape letters: B rows, T tokens of the longest row. Shorter rows are padded on the right, where
// causal attention keeps the padding from mattering; so no mask is needed.
struct EvalBatch {
  std::vector<EvalRow> rows;
  at::Tensor tokens_BT;  // int64; padding is token 0
  at::Tensor labels_BT;  // int64: the next token where it belongs to the continuation, else -100
};

struct EvalBatchOptions {
  std::int64_t max_rows = 64;
  std::int64_t max_tokens = 8192;  // rows × T; a row longer than this has a batch of its own
};

// Every choice of the set exactly once, longest batches first, in an order that depends on the set
// alone.
[[nodiscard]] std::vector<EvalBatch> make_eval_batches(const EvalSet& set,
                                                       const EvalBatchOptions& options = {});

// Adds up per-token results over a batch's rows: `nll_BT` and `is_top_BT` [B, T] (fp32 and bool; is
// the label the most likely token) where labels_BT is not -100. Fills scores[question][choice],
// which has to have the set's shape.
void add_choice_scores(const EvalBatch& batch, const at::Tensor& nll_BT,
                       const at::Tensor& is_top_BT, std::vector<std::vector<ChoiceScore>>& scores);

}  // namespace puzzle
