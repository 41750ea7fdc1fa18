// Learning rate over a run: linear warm-up, then a cosine down to a final fraction.
#pragma once

#include <cstdint>

namespace puzzle {

class OptionList;

struct ScheduleOptions {
  double warmup_fraction = 0.05;  // of all steps
  double final_fraction = 0.0;    // of the peak, at the last step

  void visit(OptionList& list);
};

// Factor on the peak learning rate of step `step` (0-based) out of `num_steps`; in (0, 1].
[[nodiscard]] double schedule_factor(const ScheduleOptions& options, std::int64_t step,
                                     std::int64_t num_steps);

}  // namespace puzzle
