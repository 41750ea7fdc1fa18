// The figure that shows a child at a glance: per layer a bar for the KV heads and one for the FFN
// width, in front of the parent's outline (as the architecture figures of arXiv 2411.19146 do).
#pragma once

#include <string>

#include "puzzle/arch/block_spec.h"
#include "puzzle/report/chart.h"

namespace puzzle {

struct ArchitectureFigure {
  ChartText text;
  Architecture parent;
  Architecture child;  // as many layers
  double width_px = 1040;
};

// Linear sub-blocks are hatched stubs with an L, left-out ones a cross. Throws Error(kInternal) if
// the two have different depths; empty without layers.
[[nodiscard]] std::string render_chart(const ArchitectureFigure& figure);

}  // namespace puzzle
