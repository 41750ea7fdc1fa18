// Which windows of a part count as one in a standard error. A part takes groups of neighbouring
// windows (token_split.h), and neighbours are of one text: they are no independent samples.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/data/token_split.h"

namespace puzzle {

struct WindowUnits {
  std::vector<std::int64_t> unit_of_window;  // by position in the part
  std::int64_t count = 0;
};

// Runs of windows that touch in the token file, at most 8 to a unit; single windows where all of
// them are one such run, since an error cannot be had from one unit.
[[nodiscard]] WindowUnits independent_units(const TokenPart& part);

}  // namespace puzzle
