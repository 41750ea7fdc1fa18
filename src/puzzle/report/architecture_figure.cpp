#include "puzzle/report/architecture_figure.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/report/chart_frame.h"

namespace puzzle {
namespace {

constexpr double kNameRoom = 92.0;
constexpr double kPanelHeight = 96.0;
constexpr double kPanelGap = 26.0;
constexpr double kFigureTop = 34.0;
constexpr double kStub = 14.0;  // height of a linear sub-block's bar

enum class PartKind { kSized, kLinear, kNone };

struct Part {
  PartKind kind = PartKind::kNone;
  double size = 0.0;  // KV heads or width
  std::string name;
};

Part attention_part(const BlockSpec& block) {
  const AttentionSpec& spec = block.attention;
  const PartKind kind = spec.kind == AttentionKind::kGqa      ? PartKind::kSized
                        : spec.kind == AttentionKind::kLinear ? PartKind::kLinear
                                                              : PartKind::kNone;
  return {kind, static_cast<double>(spec.kv_heads), spec.name()};
}

Part ffn_part(const BlockSpec& block) {
  const FfnSpec& spec = block.ffn;
  const PartKind kind = spec.kind == FfnKind::kSwiglu   ? PartKind::kSized
                        : spec.kind == FfnKind::kLinear ? PartKind::kLinear
                                                        : PartKind::kNone;
  return {kind, static_cast<double>(spec.width), spec.name()};
}

std::string hatch_id(const std::string& figure_id, std::size_t colour) {
  return fmt::format("{}-hatch-{}", figure_id, colour_class(colour));
}

std::string hatch_reference(const std::string& figure_id, std::size_t colour) {
  return "url(#" + hatch_id(figure_id, colour) + ")";
}

struct Panel {
  std::string id;  // of the figure
  std::string name;
  std::size_t colour = 0;
  double top = 0.0;
  double largest = 1.0;  // the parent's, over all layers
  double step = 0.0;     // distance of two layers
  std::function<Part(const BlockSpec&)> part;
};

double bar_height(const Panel& panel, const Part& part) {
  switch (part.kind) {
    case PartKind::kSized:
      return kPanelHeight * std::min(part.size / panel.largest, 1.0);
    case PartKind::kLinear:
      return kStub;
    case PartKind::kNone:
      return 0.0;
  }
  return 0.0;
}

void draw_layer(Markup& out, const Panel& panel, std::size_t layer, const Part& parent,
                const Part& child) {
  const double gap = std::min(0.2 * panel.step, 4.0);
  const double x = kNameRoom + static_cast<double>(layer) * panel.step + gap / 2;
  const double width = panel.step - gap;
  const double base = panel.top + kPanelHeight;
  const auto rect = [&](const std::string& style, double height) {
    return std::vector<Attribute>{
        {"class", style}, {"x", x}, {"y", base - height}, {"width", width}, {"height", height}};
  };
  out.open("g");
  out.element("title", fmt::format("layer {}: {} (parent {})", layer, child.name, parent.name));
  // Reacts to the pointer over the whole column.
  out.leaf("rect", rect("hover", kPanelHeight));
  out.leaf("rect", rect("outline", bar_height(panel, parent)));
  const double middle = x + width / 2;
  const std::string colour = colour_class(panel.colour);
  switch (child.kind) {
    case PartKind::kSized:
      out.leaf("rect", rect("fill " + colour, bar_height(panel, child)));
      break;
    case PartKind::kLinear: {
      std::vector<Attribute> attributes = rect("hatched " + colour, kStub);
      attributes.emplace_back("fill", hatch_reference(panel.id, panel.colour));
      out.leaf("rect", attributes);
      if (width >= 9) {
        out.element("text", {{"class", "middle sign"}, {"x", middle}, {"y", base - kStub - 4}},
                    "L");
      }
      break;
    }
    case PartKind::kNone: {
      const double arm = std::min(4.0, width / 3);
      const double y = base - 8;
      out.leaf("path",
               {{"class", "cross"},
                {"d", fmt::format("M{:.1f} {:.1f}L{:.1f} {:.1f}M{:.1f} {:.1f}L{:.1f} {:.1f}",
                                  middle - arm, y - arm, middle + arm, y + arm, middle - arm,
                                  y + arm, middle + arm, y - arm)}});
      break;
    }
  }
  out.close();
}

// Whole numbers: every one up to 4, else half and all of the largest.
std::vector<double> panel_ticks(double largest) {
  std::vector<double> ticks;
  if (largest <= 4.0) {
    for (double size = 1.0; size <= largest; size += 1.0) {
      ticks.push_back(size);
    }
    return ticks;
  }
  return std::fmod(largest, 2.0) == 0.0 ? std::vector{largest / 2, largest} : std::vector{largest};
}

void draw_panel(Markup& out, const Panel& panel, const ArchitectureFigure& figure) {
  const double base = panel.top + kPanelHeight;
  const double right = kNameRoom + static_cast<double>(figure.child.size()) * panel.step;
  out.open("g", {{"class", "axis"}});
  for (const double size : panel_ticks(panel.largest)) {
    const double y = base - size / panel.largest * kPanelHeight;
    out.leaf("line", {{"class", "grid"}, {"x1", kNameRoom}, {"y1", y}, {"x2", right}, {"y2", y}});
    out.element("text", {{"class", "end"}, {"x", kNameRoom - 8}, {"y", y + 4}},
                fmt::format("{:g}", size));
  }
  out.leaf("line",
           {{"class", "base"}, {"x1", kNameRoom}, {"y1", base}, {"x2", right}, {"y2", base}});
  out.element("text", {{"class", "group"}, {"x", 0}, {"y", base - kPanelHeight / 2 + 4}},
              panel.name);
  out.close();
  for (std::size_t layer = 0; layer < figure.child.size(); ++layer) {
    draw_layer(out, panel, layer, panel.part(figure.parent[layer]),
               panel.part(figure.child[layer]));
  }
}

void draw_hatches(Markup& out, const std::string& id) {
  out.open("defs");
  for (const std::size_t colour : {0U, 1U}) {
    out.open("pattern", {{"id", hatch_id(id, colour)},
                         {"width", 5},
                         {"height", 5},
                         {"patternUnits", "userSpaceOnUse"},
                         {"patternTransform", "rotate(45)"}});
    out.leaf(
        "line",
        {{"class", "line " + colour_class(colour)}, {"x1", 1}, {"y1", 0}, {"x2", 1}, {"y2", 5}});
    out.close();
  }
  out.close();
}

void draw_figure_legend(Markup& out, const std::string& id) {
  double x = kNameRoom;
  const auto name = [&](const std::string& text) {
    out.element("text", {{"x", x + 22}, {"y", 16}}, text);
    x += 22 + text_width(text) + 20;
  };
  const auto swatch = [&](const std::vector<Attribute>& extra) {
    std::vector<Attribute> attributes = {{"x", x + 2}, {"y", 5}, {"width", 13}, {"height", 13}};
    attributes.insert(attributes.end(), extra.begin(), extra.end());
    out.leaf("rect", attributes);
  };
  swatch({{"class", "fill s0"}});
  name("attention: KV heads");
  swatch({{"class", "fill s1"}});
  name("FFN: width");
  swatch({{"class", "outline"}});
  name("the parent's");
  swatch({{"class", "hatched s0"}, {"fill", hatch_reference(id, 0)}});
  name("linear");
  out.leaf("path",
           {{"class", "cross"},
            {"d", fmt::format("M{0:.0f} 7L{1:.0f} 15M{0:.0f} 15L{1:.0f} 7", x + 4, x + 12)}});
  name("left out");
}

}  // namespace

std::string render_chart(const ArchitectureFigure& figure) {
  PUZZLE_CHECK(figure.parent.size() == figure.child.size(), "{} layers drawn in front of {}",
               figure.child.size(), figure.parent.size());
  if (figure.child.empty()) {
    return "";
  }
  const double step =
      std::min((figure.width_px - kNameRoom - 4) / static_cast<double>(figure.child.size()), 48.0);
  Panel attention{figure.text.id, "Attention", 0, kFigureTop, 1.0, step, attention_part};
  Panel ffn{figure.text.id, "FFN", 1, kFigureTop + kPanelHeight + kPanelGap, 1.0, step, ffn_part};
  for (Panel* panel : {&attention, &ffn}) {
    for (const BlockSpec& block : figure.parent) {
      panel->largest = std::max(panel->largest, panel->part(block).size);
    }
  }
  const double bottom = ffn.top + kPanelHeight;
  Markup out;
  begin_figure(out, figure.text, figure.width_px, bottom + 24);
  draw_hatches(out, figure.text.id);
  draw_figure_legend(out, figure.text.id);
  draw_panel(out, attention, figure);
  draw_panel(out, ffn, figure);
  out.open("g", {{"class", "axis"}});
  const auto every = static_cast<std::size_t>(std::max(1.0, std::ceil(20.0 / step)));
  for (std::size_t layer = 0; layer < figure.child.size(); layer += every) {
    const double x = kNameRoom + (static_cast<double>(layer) + 0.5) * step;
    out.element("text", {{"class", "middle"}, {"x", x}, {"y", bottom + 16}},
                fmt::format("{}", layer));
  }
  out.element("text", {{"class", "group"}, {"x", 0}, {"y", bottom + 16}}, "Layer");
  out.close();
  end_figure(out);
  return out.str();
}

}  // namespace puzzle
