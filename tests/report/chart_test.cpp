#include "puzzle/report/chart.h"

#include <cmath>
#include <limits>
#include <regex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/report/architecture_figure.h"
#include "puzzle/report/page.h"
#include "report/check_page.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++found;
  }
  return found;
}

void expect_sound_chart(const std::string& chart) {
  test::expect_sound_page(render_page({"t", "s", {{"x", "X", "", chart}}, ""}));
}

XyChart some_xy() {
  XyChart chart;
  chart.text = {"c", "A <chart>", "What is in it."};
  chart.x.label = "tokens";
  chart.y.label = "loss";
  chart.series = {{"ours",
                   0,
                   SeriesStyle::kLineAndPoints,
                   LineLook::kSolid,
                   false,
                   {{0, 4, 0.5}, {10, 2}, {20, 1, 0.0, "best"}}}};
  return chart;
}

TEST(Chart, DrawsPointsWhereTheyBelong) {
  XyChart chart = some_xy();
  chart.y.from_zero = true;
  const std::string svg = render_chart(chart);
  expect_sound_chart(svg);
  EXPECT_EQ(count(svg, "class=\"mark s0\""), 4U) << "three points and the legend";
  EXPECT_EQ(count(svg, "class=\"error s0\""), 1U);
  // x: 0…20 on 68…696; y: 0…5 on 330…34 (20 + 6 px of legend under 8 px of margin).
  EXPECT_THAT(svg, HasSubstr("cx=\"68\" cy=\"93.2\""));
  EXPECT_THAT(svg, HasSubstr("cx=\"382\" cy=\"211.6\""));
  EXPECT_THAT(svg, HasSubstr("cx=\"696\" cy=\"270.8\""));
  EXPECT_THAT(svg, HasSubstr("d=\"M68.0 93.2L382.0 211.6L696.0 270.8\""));
  EXPECT_THAT(svg, HasSubstr("A &lt;chart&gt;</title>"));
  EXPECT_THAT(svg, HasSubstr("ours: tokens 0, loss 4.0 ± 0.5"));
  EXPECT_THAT(svg, HasSubstr(">best</text>"));
}

TEST(Chart, BreaksLinesAtValuesWithoutAPlace) {
  XyChart chart = some_xy();
  chart.y.log = true;
  chart.series[0].points = {{0, 1}, {1, 2}, {2, -1}, {3, 4}, {4, INFINITY}, {5, 8}, {6, 4}};
  const std::string svg = render_chart(chart);
  expect_sound_chart(svg);
  EXPECT_EQ(count(svg, "class=\"mark s0\""), 6U) << "five points and the legend";
  std::smatch line;
  ASSERT_TRUE(std::regex_search(svg, line, std::regex("class=\"line s0\" d=\"([^\"]*)\"")));
  EXPECT_EQ(count(line[1], "M"), 3U);
}

TEST(Chart, WithoutAnythingToShowIsEmpty) {
  XyChart xy = some_xy();
  xy.series[0].points = {{0, NAN}};
  EXPECT_EQ(render_chart(xy), "");
  xy.series.clear();
  EXPECT_EQ(render_chart(xy), "");
  EXPECT_EQ(render_chart(BarChart{{"b", "t", "d"}, "v", {"g"}, {{"s", 0, {std::nullopt}}}}), "");
  EXPECT_EQ(render_chart(HeatMap{{"h", "t", "d"}, "v", "layer", {"0"}, {{"r", "", {HeatCell{}}}}}),
            "");
  EXPECT_EQ(render_chart(ArchitectureFigure{{"a", "t", "d"}, {}, {}}), "");
}

TEST(Chart, LabelsDoNotCoverEachOther) {
  XyChart chart = some_xy();
  chart.series = {{"",
                   0,
                   SeriesStyle::kPoints,
                   LineLook::kSolid,
                   false,
                   {{1, 1, 0, "first label"}, {1, 1, 0, "second label"}, {1.01, 1, 0, "third"}}},
                  {"frame", 1, SeriesStyle::kPoints, LineLook::kSolid, false, {{0, 0}, {2, 2}}}};
  const std::string svg = render_chart(chart);
  expect_sound_chart(svg);
  std::set<std::string> places;
  const std::regex label("class=\"(start|middle|end) label\" (x=\"[^\"]*\" y=\"[^\"]*\")");
  for (std::sregex_iterator at(svg.begin(), svg.end(), label), end; at != end; ++at) {
    places.insert((*at)[1].str() + (*at)[2].str());
  }
  EXPECT_EQ(places.size(), 3U);
}

TEST(Chart, BarsStartAtZeroAndCarryTheirRange) {
  const BarChart chart{{"b", "Speed", "d"},
                       "tokens/s",
                       {"parent", "child"},
                       {{"predicted", 5, {BarValue{100, 100, 100}, std::nullopt}},
                        {"measured", 0, {BarValue{90, 80, 95}, BarValue{200, 200, 200}}}},
                       700};
  const std::string svg = render_chart(chart);
  expect_sound_chart(svg);
  EXPECT_EQ(count(svg, "class=\"fill s0\""), 3U) << "two bars and the legend";
  EXPECT_EQ(count(svg, "class=\"fill s5\""), 2U);
  EXPECT_EQ(count(svg, "class=\"error s7\""), 1U);
  // 0…200 on 60…624 px.
  EXPECT_THAT(svg, HasSubstr("x=\"60\" y=\"37\" width=\"282\""));
  EXPECT_THAT(svg, HasSubstr("parent, measured: 90.00 (80.0 to 95.0)"));
}

TEST(Chart, HeatLevelsFollowTheLogarithm) {
  HeatMap map{{"h", "t", "d"}, "nats", "layer", {"0", "1", "2", "3", "4"}, {}};
  map.rows = {{"kv1",
               "Attention",
               {{.value = 1.0},
                {.value = 10.0},
                {.value = 100.0, .chosen = true},
                {.value = INFINITY},
                {.value = -0.1}}},
              {"kv3", "Attention", {{.own = true}, {}, {}, {}, {}}}};
  const std::string svg = render_chart(map);
  expect_sound_chart(svg);
  const std::string legend_free = svg.substr(0, svg.find("class=\"chosen\""));
  EXPECT_EQ(count(legend_free, "class=\"heat h0\""), 2U);
  EXPECT_EQ(count(legend_free, "class=\"heat h5\""), 1U) << "10 is half-way from 1 to 100";
  EXPECT_EQ(count(legend_free, "class=\"heat h9\""), 2U);
  EXPECT_EQ(count(legend_free, "class=\"heat own\""), 1U);
  EXPECT_EQ(count(legend_free, "class=\"heat void\""), 4U);
  EXPECT_EQ(count(svg, "class=\"chosen\""), 2U) << "one cell and the legend";
  EXPECT_THAT(svg, HasSubstr("layer 2, kv1: 100 (chosen)"));
  EXPECT_EQ(count(svg, ">Attention</text>"), 1U) << "one heading for the group";
}

TEST(Chart, ArchitectureBarsMatchTheirSizes) {
  ArchitectureFigure figure;
  figure.text = {"arch", "t", "d"};
  figure.parent.assign(3, {AttentionSpec::gqa(4), FfnSpec::swiglu(100)});
  figure.child = {{AttentionSpec::gqa(2), FfnSpec::swiglu(25)},
                  {AttentionSpec::linear(), FfnSpec::none()},
                  {AttentionSpec::none(), FfnSpec::swiglu(100)}};
  const std::string svg = render_chart(figure);
  expect_sound_chart(svg);
  EXPECT_EQ(count(svg, "class=\"outline\""), 7U) << "six and the legend";
  EXPECT_EQ(count(svg, "class=\"fill s0\""), 2U) << "one and the legend";
  EXPECT_EQ(count(svg, "class=\"fill s1\""), 3U);
  EXPECT_EQ(count(svg, "class=\"hatched s0\""), 2U);
  EXPECT_EQ(count(svg, "class=\"cross\""), 3U);
  EXPECT_THAT(svg, HasSubstr("class=\"fill s0\" x=\"94\" y=\"82\" width=\"44\" height=\"48\""));
  EXPECT_THAT(svg, HasSubstr("width=\"44\" height=\"24\""));
  EXPECT_THAT(svg, HasSubstr("layer 1: linear (parent kv4)"));
  EXPECT_THAT(svg, HasSubstr("layer 1: none (parent w100)"));
  figure.child.pop_back();
  EXPECT_PUZZLE_ERROR((void)render_chart(figure), ErrorKind::kInternal,
                      "2 layers drawn in front of 3");
}

TEST(Chart, FitsEightyLayers) {
  ArchitectureFigure figure;
  figure.text = {"arch", "t", "d"};
  figure.parent.assign(80, {AttentionSpec::gqa(8), FfnSpec::swiglu(28672)});
  figure.child = figure.parent;
  figure.child[79] = {AttentionSpec::linear(), FfnSpec::linear()};
  expect_sound_chart(render_chart(figure));
  HeatMap map{{"h", "t", "d"}, "nats", "layer", {}, {{"kv1", "Attention", {}}}};
  for (int layer = 0; layer < 80; ++layer) {
    map.columns.push_back(std::to_string(layer));
    map.rows[0].cells.push_back({.value = 1.0 + layer});
  }
  expect_sound_chart(render_chart(map));
}

}  // namespace
}  // namespace puzzle
