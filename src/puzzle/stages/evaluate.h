// Stage `evaluate`: parent and children side by side on text and questions used for nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/data/eval_sets.h"
#include "puzzle/data/long_text.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct EvaluateOptions {
  std::int64_t num_tokens = 0;  // of the test part; 0 = all of it
  EvalSetPaths questions;
  std::int64_t batch_windows = 8;
  EvalSetOptions sets;
  LongTextOptions long_text;

  void visit(OptionList& list);
};

// Throws Error(kUsage) for two sets of questions of one name, and for a length or task of long
// texts that is named twice.
void check_evaluate_options(const EvaluateOptions& options);

// A child to compare with the parent. `weights` must outlive the call.
struct NamedModel {
  std::string name;
  std::string key;  // content of the weights
  const ModelWeights* weights = nullptr;
};

// The task of rows on the test part.
constexpr const char* kTextTask = "held-out text";

// EvaluationRows of the parent (named "parent") and every child. On the test part, per token, with
// standard errors over groups of windows: "loss", "perplexity", "bits_per_byte", "kl" (parent ‖
// child), "top1" (agreement), and paired differences: "loss_minus_parent",
// "bits_per_byte_minus_parent" and, but for the first child, "kl_minus_first" (its KL minus the
// first child's). On questions: "accuracy", for multiple
// choice also "accuracy_norm" (log-likelihood per byte), "answer_nats" (minus the right answer's
// log-likelihood), and of each "…_minus_parent", paired by question. "retention" is child ÷ parent
// of the task's main metric: accuracy, found_fraction, or perplexity the other way round. On long
// texts what evaluate_long_text.h says, by task and length
// ("single_needle@1024") and as their mean by length ("long_text@1024"). What run.db holds already
// is not computed again. Tokens, questions and texts are split over ranks. Throws as
// check_evaluate_options and make_long_text_sets, and Error(kUsage) for texts longer than the
// parent's context.
std::vector<std::string> evaluate(RunContext& context, const LoadedModel& parent,
                                  const std::vector<NamedModel>& children, const TokenPart& test,
                                  const EvaluateOptions& options);

// Of a child that evaluate() was given last: Σ KL(parent ‖ child) in nats, and tokens, by
// independent unit of the test part. Empty for a model that it was not.
[[nodiscard]] UnitSums heldout_kl_units(const RunDb& db, const std::string& model);

}  // namespace puzzle
