// A table of colours.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "puzzle/report/chart.h"
#include "puzzle/report/chart_frame.h"
#include "puzzle/report/number.h"

namespace puzzle {
namespace {

constexpr int kLevels = 10;  // of the style sheet: h0 … h9
constexpr double kLargestRatio = 1e4;
constexpr double kCellHeight = 22.0;
constexpr double kGroupRoom = 24.0;
constexpr double kColumnRoom = 20.0;
constexpr double kLegendRoom = 46.0;

struct HeatScale {
  double low = 1.0;
  double high = 10.0;

  [[nodiscard]] int level(double value) const {
    if (!(value > low)) {
      return 0;
    }
    const double part = std::log(value / low) / std::log(high / low);
    return std::isinf(value) ? kLevels - 1
                             : std::clamp(static_cast<int>(part * kLevels), 0, kLevels - 1);
  }
};

// Empty where no cell has a value.
std::optional<HeatScale> make_heat_scale(const HeatMap& chart) {
  std::vector<double> values;
  bool any = false;
  for (const HeatRow& row : chart.rows) {
    for (const HeatCell& cell : row.cells) {
      any = any || cell.value.has_value();
      if (cell.value.has_value() && std::isfinite(*cell.value) && *cell.value > 0.0) {
        values.push_back(*cell.value);
      }
    }
  }
  if (!any) {
    return std::nullopt;
  }
  HeatScale scale;
  if (!values.empty()) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    scale.high = *high > *low ? *high : *low * 2;
    scale.low = std::max(*low, scale.high / kLargestRatio);
  }
  return scale;
}

struct HeatLayout {
  double left = 0.0;
  double cell_width = 0.0;
  std::vector<double> row_top;
  double top = 0.0;
  double bottom = 0.0;
};

HeatLayout make_layout(const HeatMap& chart) {
  HeatLayout layout;
  for (const HeatRow& row : chart.rows) {
    layout.left = std::max(layout.left, text_width(row.label) + 14);
  }
  layout.cell_width = std::min(
      (chart.width_px - layout.left - 8) / static_cast<double>(chart.columns.size()), 56.0);
  double y = kColumnRoom - (chart.rows.front().group.empty() ? 0.0 : 3.0);
  std::string group;
  for (const HeatRow& row : chart.rows) {
    if (row.group != group) {
      y += kGroupRoom;
      group = row.group;
    }
    layout.row_top.push_back(y);
    y += kCellHeight;
  }
  layout.top = layout.row_top.front();
  layout.bottom = y;
  return layout;
}

void draw_column_names(Markup& out, const HeatMap& chart, const HeatLayout& layout) {
  double widest = 0.0;
  for (const std::string& column : chart.columns) {
    widest = std::max(widest, text_width(column) + 6);
  }
  const auto every = static_cast<std::size_t>(std::max(1.0, std::ceil(widest / layout.cell_width)));
  out.open("g", {{"class", "axis"}});
  out.element("text", {{"class", "end"}, {"x", layout.left - 8}, {"y", 14}}, chart.column_label);
  for (std::size_t c = 0; c < chart.columns.size(); c += every) {
    const double x = layout.left + (static_cast<double>(c) + 0.5) * layout.cell_width;
    out.element("text", {{"class", "middle"}, {"x", x}, {"y", 14}}, chart.columns[c]);
  }
  out.close();
}

void draw_cell(Markup& out, const HeatMap& chart, const HeatScale& scale, const HeatRow& row,
               std::size_t column, const HeatLayout& layout, double y) {
  const HeatCell& cell = row.cells[column];
  const double x = layout.left + static_cast<double>(column) * layout.cell_width;
  const int level = cell.value.has_value() ? scale.level(*cell.value) : 0;
  const std::string fill = cell.own                 ? "heat own"
                           : cell.value.has_value() ? fmt::format("heat h{}", level)
                                                    : "heat void";
  out.open("rect", {{"class", fill},
                    {"x", x + 0.5},
                    {"y", y + 0.5},
                    {"width", layout.cell_width - 1},
                    {"height", kCellHeight - 1}});
  const std::string what = cell.own                 ? std::string("the parent's own")
                           : cell.value.has_value() ? format_significant(*cell.value)
                                                    : std::string("not scored");
  out.element("title", fmt::format("{} {}, {}: {}{}", chart.column_label, chart.columns[column],
                                   row.label, what, cell.chosen ? " (chosen)" : ""));
  out.close();
  const double middle = x + layout.cell_width / 2;
  if (cell.value.has_value() && layout.cell_width >= 44) {
    out.element("text",
                {{"class", fmt::format("middle cell {}", level >= kLevels / 2 ? "high" : "low")},
                 {"x", middle},
                 {"y", y + 15}},
                format_significant(*cell.value, 2));
  }
}

void draw_chosen(Markup& out, const HeatLayout& layout, std::size_t column, double y) {
  const double x = layout.left + static_cast<double>(column) * layout.cell_width;
  out.leaf("rect", {{"class", "chosen"},
                    {"x", x + 1.5},
                    {"y", y + 1.5},
                    {"width", layout.cell_width - 3},
                    {"height", kCellHeight - 3},
                    {"rx", 2}});
}

void draw_heat_legend(Markup& out, const HeatMap& chart, const HeatScale& scale,
                      const HeatLayout& layout) {
  const double y = layout.bottom + 18;
  constexpr double kStep = 30.0;
  double x = layout.left;
  out.open("g", {{"class", "axis"}});
  for (int level = 0; level < kLevels; ++level) {
    out.leaf("rect", {{"class", fmt::format("heat h{}", level)},
                      {"x", x + level * kStep},
                      {"y", y},
                      {"width", kStep - 1},
                      {"height", 10}});
  }
  for (const int level : {0, kLevels / 2, kLevels}) {
    const double value =
        scale.low * std::pow(scale.high / scale.low, static_cast<double>(level) / kLevels);
    out.element("text", {{"class", "middle"}, {"x", x + level * kStep}, {"y", y + 24}},
                format_significant(value, 2));
  }
  x += kLevels * kStep + 22;
  out.element("text", {{"class", "name"}, {"x", x}, {"y", y + 10}}, chart.value_label);
  x += text_width(chart.value_label) + 30;
  out.leaf("rect",
           {{"class", "chosen"}, {"x", x}, {"y", y - 3}, {"width", 20}, {"height", 16}, {"rx", 2}});
  out.element("text", {{"class", "name"}, {"x", x + 28}, {"y", y + 10}}, "chosen for the child");
  out.close();
}

}  // namespace

std::string render_chart(const HeatMap& chart) {
  const std::optional<HeatScale> scale = make_heat_scale(chart);
  if (!scale.has_value() || chart.columns.empty() || chart.rows.empty()) {
    return "";
  }
  const HeatLayout layout = make_layout(chart);
  Markup out;
  begin_figure(out, chart.text, chart.width_px, layout.bottom + kLegendRoom);
  draw_column_names(out, chart, layout);
  std::string group;
  for (std::size_t r = 0; r < chart.rows.size(); ++r) {
    const HeatRow& row = chart.rows[r];
    const double y = layout.row_top[r];
    if (row.group != group) {
      group = row.group;
      out.element("text", {{"class", "group"}, {"x", layout.left}, {"y", y - 7}}, group);
    }
    out.element("text", {{"class", "end"}, {"x", layout.left - 8}, {"y", y + 15}}, row.label);
    for (std::size_t c = 0; c < chart.columns.size() && c < row.cells.size(); ++c) {
      draw_cell(out, chart, *scale, row, c, layout, y);
    }
  }
  // After all cells, so that no neighbour covers an outline.
  for (std::size_t r = 0; r < chart.rows.size(); ++r) {
    for (std::size_t c = 0; c < chart.columns.size() && c < chart.rows[r].cells.size(); ++c) {
      if (chart.rows[r].cells[c].chosen) {
        draw_chosen(out, layout, c, layout.row_top[r]);
      }
    }
  }
  draw_heat_legend(out, chart, *scale, layout);
  end_figure(out);
  return out.str();
}

}  // namespace puzzle
