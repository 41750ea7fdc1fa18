// Parent and children on held-out text: loss, KL, agreement.
#pragma once

#include <string>
#include <vector>

#include "puzzle/stages/evaluate.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {

struct TextModel {
  const NamedModel* model = nullptr;  // null = the parent itself
  std::string key{};                  // of its rows
};

struct TextResult {
  std::vector<EvaluationRow> rows;
  UnitSums kl;  // Σ KL(parent ‖ child), nats, and tokens by independent unit; empty of the parent
};

// One result per model, in their order. The parent runs once per batch, whatever the number of
// children; windows are split over ranks. The first child is the one to which the others'
// difference is given.
[[nodiscard]] std::vector<TextResult> evaluate_text(RunContext& context, const LoadedModel& parent,
                                                    const std::vector<TextModel>& models,
                                                    const TokenPart& part,
                                                    std::int64_t batch_windows);

}  // namespace puzzle
