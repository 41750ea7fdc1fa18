// Charts as data in, inline SVG out. No script and nothing from outside the page; colours come from
// the page's style sheet (style.h), so that one chart serves light and dark.
//
// Every chart is a <figure> with a caption; its SVG has a title and a description for screen
// readers, every point a <title> that browsers show as a tooltip. Series differ by colour and by
// marker or dash. Values that have no place (infinite, or <= 0 on a log axis) are left out. A chart
// with nothing to show renders as the empty string.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/report/axis.h"

namespace puzzle {

constexpr std::size_t kNumColours = 8;  // palette entries of the style sheet

struct ChartText {
  std::string id;           // unique in the page
  std::string title;        // the caption
  std::string description;  // what there is to see, in a sentence
};

struct ChartPoint {
  double x = 0.0;
  double y = 0.0;
  double error = 0.0;   // half the length of the error bar; 0 = none
  std::string label{};  // written beside the point, and in its tooltip
};

enum class SeriesStyle { kLine, kLineAndPoints, kPoints };
enum class LineLook { kSolid, kDashed, kFaint };

struct XySeries {
  std::string name;        // empty = not in the legend
  std::size_t colour = 0;  // modulo kNumColours; also the marker's shape
  SeriesStyle style = SeriesStyle::kLineAndPoints;
  LineLook look = LineLook::kSolid;
  bool emphasised = false;  // larger markers
  std::vector<ChartPoint> points;
  std::string value_label{};  // of y in tooltips; empty = the axis's
};

// Lines and scattered points.
struct XyChart {
  ChartText text;
  AxisSpec x;
  AxisSpec y;
  std::vector<XySeries> series;
  double width_px = 720;
  double height_px = 380;
};
[[nodiscard]] std::string render_chart(const XyChart& chart);

struct BarValue {
  double value = 0.0;
  double low = 0.0;  // ends of the error bar; equal = none
  double high = 0.0;
};

struct BarSeries {
  std::string name;
  std::size_t colour = 0;
  std::vector<std::optional<BarValue>> values;  // one per group
};

// Horizontal bars, grouped; the axis starts at 0.
struct BarChart {
  ChartText text;
  std::string value_label;  // with its unit
  std::vector<std::string> groups;
  std::vector<BarSeries> series;
  double width_px = 720;
};
[[nodiscard]] std::string render_chart(const BarChart& chart);

struct HeatCell {
  std::optional<double> value{};
  bool own = false;     // the parent's own: no value, by definition 0
  bool chosen = false;  // marked
};

struct HeatRow {
  std::string label;
  std::string group;            // a heading where it changes; empty = none
  std::vector<HeatCell> cells;  // one per column
};

// A table of colours, dark is high (in a dark page: light is high), on a log scale over at most
// four decades below the largest value.
struct HeatMap {
  ChartText text;
  std::string value_label;   // with its unit
  std::string column_label;  // what the columns are
  std::vector<std::string> columns;
  std::vector<HeatRow> rows;
  double width_px = 1040;
};
[[nodiscard]] std::string render_chart(const HeatMap& chart);

}  // namespace puzzle
