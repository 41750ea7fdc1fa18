// Lines and scattered points.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "puzzle/report/chart.h"
#include "puzzle/report/chart_frame.h"
#include "puzzle/report/number.h"

namespace puzzle {
namespace {

constexpr double kLeft = 68.0;
constexpr double kRight = 24.0;
constexpr double kBottom = 50.0;
constexpr double kTop = 8.0;

struct Plot {
  Scale x;
  Scale y;
};

bool has_place(const Plot& plot, const ChartPoint& point) {
  return plot.x.holds(point.x) && plot.y.holds(point.y);
}

std::vector<LegendEntry> xy_legend(const XyChart& chart) {
  std::vector<LegendEntry> entries;
  for (const XySeries& series : chart.series) {
    if (!series.name.empty() && !series.points.empty()) {
      entries.push_back({series.name, series.colour, series.style != SeriesStyle::kPoints,
                         series.style != SeriesStyle::kLine, series.look});
    }
  }
  return entries;
}

Plot make_plot(const XyChart& chart, double top) {
  std::vector<double> xs;
  std::vector<double> ys;
  for (const XySeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      xs.push_back(point.x);
      ys.push_back(point.y);
      if (point.error > 0.0) {
        ys.push_back(point.y - point.error);
        ys.push_back(point.y + point.error);
      }
    }
  }
  return {make_scale(xs, chart.x, {kLeft, chart.width_px - kRight}),
          make_scale(ys, chart.y, {chart.height_px - kBottom, top})};
}

void draw_axes(Markup& out, const XyChart& chart, const Plot& plot) {
  out.open("g", {{"class", "axis"}});
  for (const Tick& tick : make_ticks(plot.y)) {
    const double y = plot.y(tick.value);
    out.leaf(
        "line",
        {{"class", "grid"}, {"x1", plot.x.from_px}, {"y1", y}, {"x2", plot.x.to_px}, {"y2", y}});
    out.element("text", {{"class", "end"}, {"x", kLeft - 8}, {"y", y + 4}}, tick.label);
  }
  const double bottom = plot.y.from_px;
  out.leaf("line", {{"class", "base"},
                    {"x1", plot.x.from_px},
                    {"y1", bottom},
                    {"x2", plot.x.to_px},
                    {"y2", bottom}});
  for (const Tick& tick : make_ticks(plot.x)) {
    const double x = plot.x(tick.value);
    out.leaf("line", {{"class", "base"}, {"x1", x}, {"y1", bottom}, {"x2", x}, {"y2", bottom + 4}});
    out.element("text", {{"class", "middle"}, {"x", x}, {"y", bottom + 18}}, tick.label);
  }
  out.element("text",
              {{"class", "middle name"},
               {"x", (plot.x.from_px + plot.x.to_px) / 2},
               {"y", chart.height_px - 8}},
              chart.x.label);
  const double middle = (plot.y.from_px + plot.y.to_px) / 2;
  out.element("text",
              {{"class", "middle name"},
               {"x", 14},
               {"y", middle},
               {"transform", fmt::format("rotate(-90 14 {:.1f})", middle)}},
              chart.y.label);
  out.close();
}

std::string point_tooltip(const XyChart& chart, const XySeries& series, const ChartPoint& point) {
  const std::string who = point.label.empty() ? series.name : point.label;
  return fmt::format("{}: {} {}, {} {}", who, chart.x.label, format_significant(point.x, 4),
                     series.value_label.empty() ? chart.y.label : series.value_label,
                     format_with_error(point.y, point.error));
}

void draw_series(Markup& out, const XyChart& chart, const Plot& plot, const XySeries& series) {
  out.open("g");
  if (series.style != SeriesStyle::kPoints) {
    std::string path;
    bool pen_up = true;
    for (const ChartPoint& point : series.points) {
      if (has_place(plot, point)) {
        path +=
            fmt::format("{}{:.1f} {:.1f}", pen_up ? "M" : "L", plot.x(point.x), plot.y(point.y));
        pen_up = false;
      } else {
        pen_up = true;
      }
    }
    out.open("path", {{"class", line_class(series.colour, series.look)}, {"d", path}});
    out.element("title", series.name).close();
  }
  for (const ChartPoint& point : series.points) {
    if (!has_place(plot, point)) {
      continue;
    }
    const double x = plot.x(point.x);
    if (point.error > 0.0) {
      // On a log axis the lower end may have no place; it then reaches the bottom.
      const double low = point.y - point.error;
      const double y_low = plot.y.holds(low) ? plot.y(low) : plot.y.from_px;
      draw_error_bar(out, {x, y_low, x, plot.y(point.y + point.error)}, series.colour);
    }
    if (series.style != SeriesStyle::kLine) {
      draw_marker(out, {x, plot.y(point.y), series.emphasised ? 6.0 : 3.6, series.colour},
                  point_tooltip(chart, series, point));
    }
  }
  out.close();
}

struct Box {
  double left, top, right, bottom;
  [[nodiscard]] bool overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

struct Placement {
  Box box{};
  double x = 0.0;
  double y = 0.0;
  const char* anchor = "start";
};

// Where the label of a point at (x, y) may go, best first.
std::vector<Placement> label_placements(double x, double y, double width) {
  const auto place = [](double left, double base, double w, double anchor_x, const char* anchor) {
    return Placement{{left, base - 11, left + w, base + 3}, anchor_x, base, anchor};
  };
  std::vector<Placement> places;
  for (const double shift : {0.0, -14.0, 14.0, -28.0, 28.0}) {
    places.push_back(place(x + 10, y + 4 + shift, width, x + 10, "start"));
    places.push_back(place(x - 10 - width, y + 4 + shift, width, x - 10, "end"));
    if (shift != 0.0) {
      places.push_back(place(x - width / 2, y + 4 + shift, width, x, "middle"));
    }
  }
  return places;
}

// Markers and lines, as boxes that no label should cover.
std::vector<Box> covered_boxes(const XyChart& chart, const Plot& plot) {
  constexpr double kHalf = 5.0;  // of a marker
  constexpr double kStep = 6.0;  // along a line
  std::vector<Box> boxes;
  for (const XySeries& series : chart.series) {
    std::optional<std::pair<double, double>> last;
    for (const ChartPoint& point : series.points) {
      if (!has_place(plot, point)) {
        last.reset();
        continue;
      }
      const double x = plot.x(point.x);
      const double y = plot.y(point.y);
      boxes.push_back({x - kHalf, y - kHalf, x + kHalf, y + kHalf});
      if (last.has_value() && series.style != SeriesStyle::kPoints) {
        const auto [from_x, from_y] = *last;
        const int steps = static_cast<int>(std::hypot(x - from_x, y - from_y) / kStep);
        for (int i = 1; i < steps; ++i) {
          const double part = static_cast<double>(i) / steps;
          const double at_x = from_x + part * (x - from_x);
          const double at_y = from_y + part * (y - from_y);
          boxes.push_back({at_x - 1, at_y - 1, at_x + 1, at_y + 1});
        }
      }
      last = {x, y};
    }
  }
  return boxes;
}

// Writes point labels where they cover neither each other nor a point or line, as far as that goes.
void draw_labels(Markup& out, const XyChart& chart, const Plot& plot) {
  std::vector<Box> taken = covered_boxes(chart, plot);
  const Box inside{plot.x.from_px, plot.y.to_px - 8, plot.x.to_px + kRight, plot.y.from_px};
  for (const XySeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      if (point.label.empty() || !has_place(plot, point)) {
        continue;
      }
      const auto places =
          label_placements(plot.x(point.x), plot.y(point.y), text_width(point.label));
      const auto is_free = [&](const Placement& place) {
        const Box& box = place.box;
        return box.left >= inside.left && box.right <= inside.right && box.top >= inside.top &&
               box.bottom <= inside.bottom &&
               std::none_of(taken.begin(), taken.end(),
                            [&box](const Box& other) { return box.overlaps(other); });
      };
      auto best = std::find_if(places.begin(), places.end(), is_free);
      best = best == places.end() ? places.begin() : best;
      taken.push_back(best->box);
      out.element(
          "text",
          {{"class", fmt::format("{} label{}", best->anchor, series.emphasised ? " strong" : "")},
           {"x", best->x},
           {"y", best->y}},
          point.label);
    }
  }
}

}  // namespace

std::string render_chart(const XyChart& chart) {
  const std::vector<LegendEntry> legend = xy_legend(chart);
  const double plot_width = chart.width_px - kLeft - kRight;
  const Plot plot = make_plot(chart, kTop + legend_height(legend, plot_width));
  const bool is_empty =
      std::none_of(chart.series.begin(), chart.series.end(), [&plot](const XySeries& series) {
        return std::any_of(series.points.begin(), series.points.end(),
                           [&plot](const ChartPoint& point) { return has_place(plot, point); });
      });
  if (is_empty) {
    return "";
  }
  Markup out;
  begin_figure(out, chart.text, chart.width_px, chart.height_px);
  draw_legend(out, legend, kLeft, plot_width);
  draw_axes(out, chart, plot);
  for (const XySeries& series : chart.series) {
    draw_series(out, chart, plot, series);
  }
  draw_labels(out, chart, plot);
  end_figure(out);
  return out.str();
}

}  // namespace puzzle
