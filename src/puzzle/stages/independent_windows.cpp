#include "puzzle/stages/independent_windows.h"

#include <algorithm>
#include <numeric>

namespace puzzle {
namespace {

constexpr std::int64_t kWindowsPerUnit = 8;  // data.group_windows, unless a recipe says otherwise

}  // namespace

WindowUnits independent_units(const TokenPart& part) {
  const auto starts = part.starts();
  WindowUnits units;
  units.unit_of_window.resize(starts.size());
  std::vector<std::size_t> order(starts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t position) { return starts[position]; });
  std::int64_t in_unit = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    const bool touches = k > 0 && starts[order[k]] - starts[order[k - 1]] <= part.window();
    if (!touches || in_unit == kWindowsPerUnit) {
      ++units.count;
      in_unit = 0;
    }
    ++in_unit;
    units.unit_of_window[order[k]] = units.count - 1;
  }
  if (units.count == 1) {
    std::iota(units.unit_of_window.begin(), units.unit_of_window.end(), std::int64_t{0});
    units.count = part.num_windows();
  }
  return units;
}

}  // namespace puzzle
