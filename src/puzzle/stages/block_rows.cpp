#include "puzzle/stages/block_rows.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "puzzle/base/error.h"

namespace puzzle {

void add_variant_rows(const TrainingFacts& facts, const TrainedVariant& variant,
                      std::vector<VariantRow>& rows) {
  const std::vector<std::string> names = variant.planned.variant_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const StudentVerdict& verdict = variant.verdicts[i];
    VariantRow row{
        .key = facts.key, .layer = facts.layer, .variant = names[i], .stage = facts.stage};
    row.init = facts.init;
    row.error_before = verdict.before.error;
    row.error_after = verdict.after.error;
    row.loss_before = verdict.before.loss;
    row.loss_after = verdict.after.loss;
    row.tokens = facts.tokens;
    row.kept = verdict.keeps_training() ? "after" : "before";
    rows.push_back(row);
  }
}

// A training that has diverged leaves a gap: run.db takes no NaN.
void add_curve_rows(const TrainingFacts& facts, const TrainedVariant& variant,
                    std::vector<CurveRow>& rows) {
  for (const CurvePoint& point : variant.curve) {
    for (const auto& [metric, value] :
         {std::pair{"loss", point.loss}, std::pair{"heldout_loss", point.held_out.loss},
          std::pair{"heldout_error", point.held_out.error}}) {
      if (!std::isnan(value)) {
        rows.push_back({.key = facts.key,
                        .stage = facts.stage,
                        .series = fmt::format("layer {}/{}", facts.layer, variant.planned.name()),
                        .metric = metric,
                        .step = point.step,
                        .tokens = std::min(point.step * facts.step_tokens, facts.tokens),
                        .value = value});
      }
    }
  }
}

}  // namespace puzzle
