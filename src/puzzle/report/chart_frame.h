// What all charts share: the figure around the SVG, legends, error bars, text widths.
// Private to this layer.
#pragma once

#include <string>
#include <vector>

#include "puzzle/report/chart.h"
#include "puzzle/report/markup.h"

namespace puzzle {

// Opens <figure>, its caption and the <svg>; end_figure closes them.
void begin_figure(Markup& out, const ChartText& text, double width_px, double height_px);
void end_figure(Markup& out);

// Estimated width of chart text, which is 12 px high.
[[nodiscard]] double text_width(std::string_view text);

[[nodiscard]] std::string colour_class(std::size_t colour);
[[nodiscard]] std::string line_class(std::size_t colour, LineLook look);

// A point's marker, whose shape follows the colour, with its tooltip.
struct Marker {
  double x = 0.0;
  double y = 0.0;
  double size = 4.0;
  std::size_t colour = 0;
};
void draw_marker(Markup& out, const Marker& marker, const std::string& tooltip);

struct LegendEntry {
  std::string name;
  std::size_t colour = 0;
  bool line = false;
  bool marker = false;
  LineLook look = LineLook::kSolid;  // with neither line nor marker: a filled square
};
// Height that the legend takes when wrapped at `width`, 0 if there is nothing to name.
[[nodiscard]] double legend_height(const std::vector<LegendEntry>& entries, double width);
void draw_legend(Markup& out, const std::vector<LegendEntry>& entries, double left, double width);

// From (x1, y1) to (x2, y2) with caps; either upright or level.
struct Segment {
  double x1 = 0.0;
  double y1 = 0.0;
  double x2 = 0.0;
  double y2 = 0.0;
};
void draw_error_bar(Markup& out, const Segment& segment, std::size_t colour);

}  // namespace puzzle
