#include "puzzle/report/chart_frame.h"

#include <cmath>

#include <fmt/format.h>

namespace puzzle {
namespace {

constexpr double kLegendRow = 20.0;
constexpr double kSwatch = 22.0;
constexpr double kLegendGap = 18.0;

double entry_width(const LegendEntry& entry) {
  return kSwatch + 6 + text_width(entry.name) + kLegendGap;
}

// Corners of a marker around the origin, clockwise; a circle has none.
std::vector<std::pair<double, double>> marker_corners(std::size_t colour, double size) {
  switch (colour % 4) {
    case 1:
      return {{-size, -size}, {size, -size}, {size, size}, {-size, size}};
    case 2:
      return {{0, -1.35 * size}, {1.35 * size, 0}, {0, 1.35 * size}, {-1.35 * size, 0}};
    case 3:
      return {{0, -1.2 * size}, {1.2 * size, size}, {-1.2 * size, size}};
    default:
      return {};
  }
}

void draw_swatch(Markup& out, const LegendEntry& entry, double x, double y) {
  const std::string colour = colour_class(entry.colour);
  if (!entry.line && !entry.marker) {
    out.leaf("rect", {{"class", "fill " + colour},
                      {"x", x + 8},
                      {"y", y - 6},
                      {"width", 12},
                      {"height", 12},
                      {"rx", 2}});
    return;
  }
  if (entry.line) {
    out.leaf("line", {{"class", line_class(entry.colour, entry.look)},
                      {"x1", x},
                      {"y1", y},
                      {"x2", x + kSwatch},
                      {"y2", y}});
  }
  if (entry.marker) {
    draw_marker(out, {x + kSwatch / 2, y, 4.0, entry.colour}, "");
  }
}

}  // namespace

void begin_figure(Markup& out, const ChartText& text, double width_px, double height_px) {
  out.open("figure", {{"class", "chart"}});
  out.element("figcaption", text.title);
  out.open("div", {{"class", "scroll"}});
  out.open("svg", {{"xmlns", "http://www.w3.org/2000/svg"},
                   {"role", "img"},
                   {"aria-labelledby", text.id + "-title " + text.id + "-desc"},
                   {"viewBox", fmt::format("0 0 {:.0f} {:.0f}", width_px, height_px)},
                   {"width", width_px},
                   {"height", height_px}});
  out.element("title", {{"id", text.id + "-title"}}, text.title);
  out.element("desc", {{"id", text.id + "-desc"}}, text.description);
}

void end_figure(Markup& out) { out.close().close().close(); }

double text_width(std::string_view text) {
  double width = 0.0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xC0) == 0x80) {
      continue;  // the rest of a character already counted
    }
    const bool narrow = std::string_view("iljtfr.,:;'|!()[] ").find(c) != std::string_view::npos;
    const bool wide = byte == 'm' || byte == 'w' || (byte >= 'A' && byte <= 'Z');
    // Of DejaVu Sans, the widest of the fonts that the page may get.
    width += narrow ? 4.6 : wide ? 9.6 : 7.6;
  }
  return width;
}

std::string line_class(std::size_t colour, LineLook look) {
  const char* extra = look == LineLook::kDashed  ? " dashed"
                      : look == LineLook::kFaint ? " faint"
                                                 : "";
  return "line " + colour_class(colour) + extra;
}

std::string colour_class(std::size_t colour) { return fmt::format("s{}", colour % kNumColours); }

void draw_marker(Markup& out, const Marker& marker, const std::string& tooltip) {
  const std::string style = "mark " + colour_class(marker.colour);
  const auto corners = marker_corners(marker.colour, marker.size);
  if (corners.empty()) {
    out.open("circle",
             {{"class", style}, {"cx", marker.x}, {"cy", marker.y}, {"r", 1.1 * marker.size}});
  } else {
    std::string path;
    for (const auto& [dx, dy] : corners) {
      path +=
          fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", marker.x + dx, marker.y + dy);
    }
    out.open("path", {{"class", style}, {"d", path + "Z"}});
  }
  if (!tooltip.empty()) {
    out.element("title", tooltip);
  }
  out.close();
}

double legend_height(const std::vector<LegendEntry>& entries, double width) {
  if (entries.empty()) {
    return 0.0;
  }
  double rows = 1.0;
  double x = 0.0;
  for (const LegendEntry& entry : entries) {
    if (x > 0.0 && x + entry_width(entry) > width) {
      x = 0.0;
      rows += 1.0;
    }
    x += entry_width(entry);
  }
  return rows * kLegendRow + 6.0;
}

void draw_legend(Markup& out, const std::vector<LegendEntry>& entries, double left, double width) {
  double x = 0.0;
  double y = kLegendRow / 2;
  for (const LegendEntry& entry : entries) {
    if (x > 0.0 && x + entry_width(entry) > width) {
      x = 0.0;
      y += kLegendRow;
    }
    draw_swatch(out, entry, left + x, y);
    out.element("text", {{"x", left + x + kSwatch + 6}, {"y", y + 4}}, entry.name);
    x += entry_width(entry);
  }
}

void draw_error_bar(Markup& out, const Segment& segment, std::size_t colour) {
  constexpr double kCap = 3.5;
  const bool upright = segment.x1 == segment.x2;
  const double dx = upright ? kCap : 0.0;
  const double dy = upright ? 0.0 : kCap;
  std::string path =
      fmt::format("M{:.1f} {:.1f}L{:.1f} {:.1f}", segment.x1, segment.y1, segment.x2, segment.y2);
  for (const auto& [x, y] :
       {std::pair(segment.x1, segment.y1), std::pair(segment.x2, segment.y2)}) {
    path += fmt::format("M{:.1f} {:.1f}L{:.1f} {:.1f}", x - dx, y - dy, x + dx, y + dy);
  }
  out.leaf("path", {{"class", "halo"}, {"d", path}});
  out.leaf("path", {{"class", "error " + colour_class(colour)}, {"d", path}});
}

}  // namespace puzzle
