// Damage against cost: the swept budget, the child, the baselines.
#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

constexpr double kMib = 1024.0 * 1024.0;

// The cost that the curve is drawn over: the swept one, else the best known that most rows have.
std::string curve_cost(const ReportData& data) {
  std::map<std::string, std::size_t> counts;
  for (const ArchitectureRow& row : data.architectures) {
    if (std::string swept = detail_text(row, "swept_cost"); !swept.empty()) {
      return swept;
    }
    for (const auto& [name, value] : costs_of(row)) {
      ++counts[name];
    }
  }
  static constexpr std::array kPreferred = {"generation_tokens_per_s",
                                            "total_tokens_per_s",
                                            "total_s",
                                            "memory_bytes",
                                            "memory_mib",
                                            "weight_bytes",
                                            "parameters"};
  for (const char* name : kPreferred) {
    if (counts.contains(name)) {
      return name;
    }
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? "" : most->first;
}

std::string cost_axis_label(const std::string& name) {
  std::string label = name;
  std::replace(label.begin(), label.end(), '_', ' ');
  if (name.ends_with("_bytes")) {
    return label.substr(0, label.size() - 6) + ", MiB";
  }
  if (name.ends_with("_mib")) {
    return label.substr(0, label.size() - 4) + ", MiB";
  }
  if (name.ends_with("_per_s")) {
    return label.substr(0, label.size() - 6) + "/s";
  }
  if (name.ends_with("_s")) {
    return label.substr(0, label.size() - 2) + ", s";
  }
  return label;
}

double cost_on_axis(const std::string& name, double value) {
  return name.ends_with("_bytes") ? value / kMib : value;
}

struct CurvePoints {
  XySeries sweep{.name = "search, swept budget", .colour = 0, .points = {}};
  XySeries diverse{
      .name = "further solutions", .colour = 4, .style = SeriesStyle::kPoints, .points = {}};
  XySeries measured{.name = "measured KL of the whole model",
                    .colour = 2,
                    .style = SeriesStyle::kPoints,
                    .points = {},
                    .value_label = "measured KL, nats/token"};
  XySeries baselines{.name = "baselines", .colour = 7, .style = SeriesStyle::kPoints, .points = {}};
  XySeries child{.name = "our child",
                 .colour = 1,
                 .style = SeriesStyle::kPoints,
                 .emphasised = true,
                 .points = {}};
};

// KL of the whole model that an architecture gives, untrained where that was evaluated, so that it
// compares with the sum of scores.
const EvaluationRow* measured_kl(const ReportData& data, const ArchitectureRow& row) {
  const EvaluationRow* kl = nullptr;
  for (const ModelRow& model : data.models) {
    if (model.role == "before" && model.architecture == row.name) {
      return find_metric(data, model.name, "kl");
    }
    kl = model.name == row.name ? find_metric(data, model.name, "kl") : kl;
  }
  return kl;
}

// As the search measured it; empty where it did not.
std::string measured_text(const ArchitectureRow& row) {
  const std::optional<double> kl = detail_number(row, "measured_kl");
  return kl ? fmt::format("{} ± {}", format_significant(*kl, 4),
                          format_significant(detail_number(row, "measured_kl_se").value_or(0.0), 2))
            : "";
}

CurvePoints sort_points(const ReportData& data, const std::string& cost) {
  CurvePoints points;
  const ArchitectureRow* child = child_architecture(data);
  for (const ArchitectureRow& row : data.architectures) {
    const std::optional<double> value = cost_of(row, cost);
    if (!value.has_value()) {
      continue;
    }
    const double x = cost_on_axis(cost, *value);
    ChartPoint point{.x = x, .y = row.objective};
    if (&row == child) {
      point.label = model_label(data, child_name(data));
      points.child.points.push_back(point);
    } else if (is_swept(row)) {
      points.sweep.points.push_back(point);
      if (const std::string curve = detail_text(row, "curve"); !curve.empty()) {
        points.sweep.name = curve;
      }
    } else if (row.method == "mip" || row.method == "rounds" || row.method == "local") {
      points.diverse.points.push_back(point);
    } else {
      point.label = row.name;
      points.baselines.points.push_back(point);
    }
    if (const EvaluationRow* kl = measured_kl(data, row)) {
      points.measured.points.push_back({.x = x, .y = kl->value, .error = kl->standard_error});
    }
  }
  std::stable_sort(points.sweep.points.begin(), points.sweep.points.end(),
                   [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
  return points;
}

std::string pareto_chart(const CurvePoints& points, const std::string& cost) {
  const bool measured = !points.measured.points.empty();
  XyChart chart;
  chart.text = {
      "pareto",
      measured ? "Damage against cost: predicted, and measured KL"
               : "Predicted damage against cost",
      fmt::format("Sum of scores over the cost of the whole child: the curve of the swept budget, "
                  "the chosen child and the baselines.{}",
                  measured ? " Points of their own show the measured KL of whole children." : "")};
  chart.x.label = cost_axis_label(cost);
  chart.x.tight = true;
  const std::string predicted = "sum of scores (predicted), nats/token";
  chart.y.label = measured ? "damage: sum of scores, or measured KL; nats/token" : predicted;
  chart.series = {points.sweep, points.diverse, points.measured, points.baselines, points.child};
  double low = 1e300;
  double high = 0.0;
  for (XySeries& series : chart.series) {
    series.value_label = series.value_label.empty() ? predicted : series.value_label;
    for (const ChartPoint& point : series.points) {
      if (point.y > 0.0) {
        low = std::min(low, point.y);
        high = std::max(high, point.y);
      }
    }
  }
  chart.y.log = high > 8 * low;
  chart.y.from_zero = !chart.y.log;
  chart.width_px = 1040;
  chart.height_px = 430;
  return render_chart(chart);
}

void add_architecture_table(Markup& out, const ReportData& data) {
  std::vector<std::string> costs;
  for (const ArchitectureRow& row : data.architectures) {
    for (const auto& [name, value] : costs_of(row)) {
      if (std::find(costs.begin(), costs.end(), name) == costs.end()) {
        costs.push_back(name);
      }
    }
  }
  std::sort(costs.begin(), costs.end());
  std::vector<Column> columns = {{"architecture", false}, {"method", false}, {"sum of scores"}};
  const bool measured =
      std::any_of(data.architectures.begin(), data.architectures.end(),
                  [](const ArchitectureRow& row) { return !measured_text(row).empty(); });
  if (measured) {
    columns.push_back({"measured KL"});
  }
  for (const std::string& cost : costs) {
    columns.push_back(
        {cost_axis_label(cost.ends_with("_bytes") ? cost.substr(0, cost.size() - 6) : cost)});
  }
  columns.push_back({"proven gap"});
  columns.push_back({"budget", false});
  const ArchitectureRow* child = child_architecture(data);
  std::vector<TableRow> rows;
  for (const ArchitectureRow& row : data.architectures) {
    TableRow& line = rows.emplace_back();
    line.is_ours = &row == child;
    line.cells = {row.name, row.method, format_significant(row.objective, 4)};
    if (measured) {
      const std::string text = measured_text(row);
      line.cells.emplace_back(text.empty() ? "–" : text);
    }
    for (const std::string& cost : costs) {
      const auto value = cost_of(row, cost);
      line.cells.emplace_back(value.has_value() ? cost_text(cost, *value) : "–");
    }
    line.cells.emplace_back(row.method == "mip" ? format_significant(row.gap, 1) : "–");
    line.cells.emplace_back(row.budget);
  }
  open_details(out, "All architectures the search gave");
  add_table(out, columns, rows);
  out.close();
}

}  // namespace

std::string cost_text(const std::string& name, double value) {
  if (name.ends_with("_bytes")) {
    return human_bytes(value);
  }
  if (name.ends_with("_mib")) {
    return human_bytes(value * kMib);
  }
  if (name.ends_with("_per_s")) {
    return format_significant(value, 4) + "/s";
  }
  if (name.ends_with("_s")) {
    return format_significant(value, 4) + " s";
  }
  return human_count(value);
}

PageSection search_section(const ReportData& data) {
  PageSection section{
      "search", "Search",
      "Every point is a whole child: left to right its cost, upwards the damage that "
      "its scores predict. Lower is better at the same cost.",
      ""};
  Markup out;
  const std::string cost = curve_cost(data);
  const CurvePoints points = cost.empty() ? CurvePoints{} : sort_points(data, cost);
  if (!points.measured.points.empty()) {
    section.lead +=
        " Some children are there twice: the measured KL is that of the child as assembled, before "
        "anything was done to the whole.";
  }
  const std::string chart = pareto_chart(points, cost);
  if (chart.empty()) {
    add_nothing(out, "The search has not run yet.");
  } else {
    out.raw(chart);
    add_architecture_table(out, data);
  }
  section.body = out.str();
  return section;
}

}  // namespace puzzle
