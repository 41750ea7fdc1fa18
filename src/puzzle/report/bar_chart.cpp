// Grouped horizontal bars.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "puzzle/report/chart.h"
#include "puzzle/report/chart_frame.h"
#include "puzzle/report/number.h"

namespace puzzle {
namespace {

constexpr double kBar = 16.0;
constexpr double kBarGap = 3.0;
constexpr double kGroupGap = 14.0;
constexpr double kValueRoom = 76.0;  // right of the longest bar, for its number
constexpr double kAxisRoom = 44.0;

bool is_shown(const std::optional<BarValue>& value) {
  return value.has_value() && std::isfinite(value->value);
}

Scale bar_scale(const BarChart& chart, double left) {
  std::vector<double> values;
  for (const BarSeries& series : chart.series) {
    for (const std::optional<BarValue>& value : series.values) {
      if (is_shown(value)) {
        values.insert(values.end(), {value->value, value->high});
      }
    }
  }
  return make_scale(values, {.label = "", .log = false, .from_zero = true},
                    {left, chart.width_px - kValueRoom});
}

void draw_bar_axis(Markup& out, const BarChart& chart, const Scale& scale, PixelRange height) {
  out.open("g", {{"class", "axis"}});
  for (const Tick& tick : make_ticks(scale)) {
    const double x = scale(tick.value);
    out.leaf("line", {{"class", tick.value == 0.0 ? "base" : "grid"},
                      {"x1", x},
                      {"y1", height.from},
                      {"x2", x},
                      {"y2", height.to}});
    out.element("text", {{"class", "middle"}, {"x", x}, {"y", height.to + 16}}, tick.label);
  }
  out.element(
      "text",
      {{"class", "middle name"}, {"x", (scale.from_px + scale.to_px) / 2}, {"y", height.to + 36}},
      chart.value_label);
  out.close();
}

void draw_bar(Markup& out, const Scale& scale, const BarSeries& series, const BarValue& bar,
              double y, const std::string& group) {
  const bool has_error = bar.high > bar.low;
  const double zero = scale(0.0);
  const double end = scale(bar.value);
  out.open("rect", {{"class", "fill " + colour_class(series.colour)},
                    {"x", std::min(zero, end)},
                    {"y", y},
                    {"width", std::abs(end - zero)},
                    {"height", kBar},
                    {"rx", 2}});
  const std::string range = has_error ? fmt::format(" ({} to {})", format_significant(bar.low),
                                                    format_significant(bar.high))
                                      : "";
  out.element("title", fmt::format("{}, {}: {}{}", group, series.name,
                                   format_significant(bar.value, 4), range));
  out.close();
  double text_at = std::max(end, zero);
  if (has_error) {
    const double middle = y + kBar / 2;
    draw_error_bar(out, {scale(bar.low), middle, scale(bar.high), middle}, kNumColours - 1);
    text_at = std::max(text_at, scale(bar.high));
  }
  out.element("text", {{"class", "value"}, {"x", text_at + 8}, {"y", y + kBar - 4}},
              format_significant(bar.value));
}

}  // namespace

std::string render_chart(const BarChart& chart) {
  const bool is_empty =
      std::none_of(chart.series.begin(), chart.series.end(), [](const BarSeries& series) {
        return std::any_of(series.values.begin(), series.values.end(), is_shown);
      });
  if (is_empty) {
    return "";
  }
  double left = 60.0;
  for (const std::string& group : chart.groups) {
    left = std::max(left, std::min(text_width(group) + 16.0, chart.width_px / 2));
  }
  std::vector<LegendEntry> legend;
  legend.reserve(chart.series.size());
  for (const BarSeries& series : chart.series) {
    legend.push_back({series.name, series.colour});
  }
  if (legend.size() == 1) {
    legend.clear();  // the caption names it
  }
  const double top = 4 + legend_height(legend, chart.width_px - left);
  const double group_height =
      static_cast<double>(chart.series.size()) * (kBar + kBarGap) - kBarGap + kGroupGap;
  const double bottom = top + static_cast<double>(chart.groups.size()) * group_height;
  const Scale scale = bar_scale(chart, left);

  Markup out;
  begin_figure(out, chart.text, chart.width_px, bottom + kAxisRoom);
  draw_legend(out, legend, left, chart.width_px - left);
  draw_bar_axis(out, chart, scale, {top, bottom});
  for (std::size_t g = 0; g < chart.groups.size(); ++g) {
    double y = top + static_cast<double>(g) * group_height + kGroupGap / 2;
    const double middle = y + (group_height - kGroupGap) / 2;
    out.element("text", {{"class", "end"}, {"x", left - 10}, {"y", middle + 4}}, chart.groups[g]);
    for (const BarSeries& series : chart.series) {
      if (g < series.values.size() && is_shown(series.values[g])) {
        draw_bar(out, scale, series, *series.values[g], y, chart.groups[g]);
      }
      y += kBar + kBarGap;
    }
  }
  end_figure(out);
  return out.str();
}

}  // namespace puzzle
