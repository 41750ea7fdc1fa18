#include "puzzle/engine/width_costs.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

using PointKey = std::tuple<Phase, std::int64_t, std::int64_t>;  // phase, batch, context

std::optional<std::int64_t> width_of_row(const MeasuredCost& row) {
  constexpr std::string_view kPrefix = "ffn/";
  if (!row.subblock.starts_with(kPrefix)) {
    return std::nullopt;
  }
  const FfnSpec ffn = parse_ffn(std::string_view(row.subblock).substr(kPrefix.size()));
  return ffn.kind == FfnKind::kSwiglu ? std::optional(ffn.width) : std::nullopt;
}

MeasuredCost between(const MeasuredCost& narrow, std::int64_t narrow_width,
                     const MeasuredCost& wide, std::int64_t wide_width, std::int64_t width) {
  const double part =
      static_cast<double>(width - narrow_width) / static_cast<double>(wide_width - narrow_width);
  const auto on_line = [&](double a, double b) { return a + part * (b - a); };
  MeasuredCost row = narrow;
  row.subblock = subblock_name(FfnSpec::swiglu(width));
  row.seconds = on_line(narrow.seconds, wide.seconds);
  row.p10_s = on_line(narrow.p10_s, wide.p10_s);
  row.p90_s = on_line(narrow.p90_s, wide.p90_s);
  row.samples = 0;
  return row;
}

}  // namespace

std::vector<std::int64_t> spread_widths(const std::vector<std::int64_t>& widths,
                                        std::int64_t most) {
  PUZZLE_CHECK(most >= 2, "{} widths to time", most);
  if (std::ssize(widths) <= most) {
    return widths;
  }
  std::vector<std::int64_t> sorted = widths;
  std::ranges::sort(sorted);
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < most; ++i) {
    const std::int64_t last = std::ssize(sorted) - 1;
    chosen.push_back(sorted[static_cast<std::size_t>((i * last + (most - 1) / 2) / (most - 1))]);
  }
  std::vector<std::int64_t> kept;
  for (const std::int64_t width : widths) {
    if (std::ranges::find(chosen, width) != chosen.end()) {
      kept.push_back(width);
    }
  }
  return kept;
}

void interpolate_widths(std::vector<MeasuredCost>& rows, const std::vector<std::int64_t>& widths) {
  std::map<PointKey, std::map<std::int64_t, MeasuredCost>> timed;
  for (const MeasuredCost& row : rows) {
    if (const auto width = width_of_row(row)) {
      timed[{row.phase, row.batch, row.context}][*width] = row;
    }
  }
  for (const auto& [point, by_width] : timed) {
    for (const std::int64_t width : widths) {
      const auto wide = by_width.lower_bound(width);
      if (wide != by_width.end() && wide->first == width) {
        continue;
      }
      if (wide == by_width.end() || wide == by_width.begin()) {
        fail(ErrorKind::kUsage, "times of FFN width {}: those of {} to {} were measured", width,
             by_width.begin()->first, by_width.rbegin()->first);
      }
      const auto narrow = std::prev(wide);
      rows.push_back(between(narrow->second, narrow->first, wide->second, wide->first, width));
    }
  }
}

}  // namespace puzzle
