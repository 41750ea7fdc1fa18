#include "puzzle/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "puzzle/base/options.h"

namespace puzzle {

void ScheduleOptions::visit(OptionList& list) {
  list.add("warmup_fraction", warmup_fraction, Range<double>{0.0, 1.0},
           "Fraction of the steps in which the learning rate rises linearly.");
  list.add("final_fraction", final_fraction, Range<double>{0.0, 1.0},
           "Learning rate at the end of the cosine, as a fraction of the peak.");
}

double schedule_factor(const ScheduleOptions& options, std::int64_t step, std::int64_t num_steps) {
  const auto warmup_steps = static_cast<std::int64_t>(
      std::ceil(options.warmup_fraction * static_cast<double>(num_steps)));
  if (step < warmup_steps) {
    return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  const auto rest = static_cast<double>(std::max<std::int64_t>(1, num_steps - warmup_steps));
  // The middle of the step, so that the last one still moves when final_fraction is 0.
  const double progress = std::min(1.0, (static_cast<double>(step - warmup_steps) + 0.5) / rest);
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return options.final_fraction + (1.0 - options.final_fraction) * cosine;
}

}  // namespace puzzle
