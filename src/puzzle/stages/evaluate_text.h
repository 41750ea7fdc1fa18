// Parent and children on held-out text: loss, KL, agreement.
#pragma once

#include <string>
#include <vector>

#include "puzzle/stages/evaluate.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {

struct TextResult {
  std::vector<EvaluationRow> rows;
  UnitSums kl;  // Σ KL(parent ‖ child), nats, and tokens by independent unit; empty of the parent
};

// One result per model of `models` (null = the parent itself), in their order, with the keys of
// the same places. The parent runs once per batch, whatever the number of children; windows are
// split over ranks. The first child is the one to which the others' difference is given.
[[nodiscard]] std::vector<TextResult> evaluate_text(RunContext& context, const LoadedModel& parent,
                                                    const std::vector<const NamedModel*>& models,
                                                    const std::vector<std::string>& keys,
                                                    const TokenPart& part,
                                                    std::int64_t batch_windows);

}  // namespace puzzle
