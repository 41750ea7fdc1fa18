// Times of FFN widths between those that were timed. A fine search space has more widths than are
// worth timing one by one: an FFN's time is its matrices', which grow with the width.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/engine/measured_cost.h"

namespace puzzle {

// At most `most` (at least 2) of `widths`, in their order: the smallest, the largest, and others as
// evenly spread over the sorted list as can be.
[[nodiscard]] std::vector<std::int64_t> spread_widths(const std::vector<std::int64_t>& widths,
                                                      std::int64_t most);

// Adds a row for each of `widths` that `rows` lack, for every phase, batch and context, on the line
// between the nearest narrower and wider rows; with 0 samples, as it was not measured. Throws
// Error(kUsage) for a width outside those of the rows.
void interpolate_widths(std::vector<MeasuredCost>& rows, const std::vector<std::int64_t>& widths);

}  // namespace puzzle
