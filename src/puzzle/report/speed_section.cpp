// Predicted against measured speed.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

// One bar or table cell: a rate in tokens/s with the range of its samples.
struct Rate {
  std::optional<BarValue> predicted;
  std::optional<BarValue> measured;
};

std::optional<BarValue> plain(std::optional<double> value) {
  return value.has_value() ? std::optional(BarValue{*value, *value, *value}) : std::nullopt;
}

Rate generation_rate(const ThroughputRow& row) {
  Rate rate{plain(row.predicted_generation_per_s), plain(row.measured_generation_per_s)};
  if (rate.measured.has_value() && row.generation_p10_per_s.has_value() &&
      row.generation_p90_per_s.has_value()) {
    rate.measured->low = *row.generation_p10_per_s;
    rate.measured->high = *row.generation_p90_per_s;
  }
  return rate;
}

Rate prefill_rate(const ThroughputRow& row) {
  const auto tokens = static_cast<double>(row.batch * row.prompt_tokens);
  const auto per_s = [tokens](std::optional<double> seconds) -> std::optional<double> {
    return seconds.has_value() && *seconds > 0.0 ? std::optional(tokens / *seconds) : std::nullopt;
  };
  Rate rate{plain(per_s(row.predicted_prefill_s)), plain(per_s(row.measured_prefill_s))};
  const auto high = per_s(row.prefill_p10_s);  // the short times are the high rates
  const auto low = per_s(row.prefill_p90_s);
  if (rate.measured.has_value() && low.has_value() && high.has_value()) {
    rate.measured->low = *low;
    rate.measured->high = *high;
  }
  return rate;
}

// The parent first, then the child, then by name.
std::vector<const ThroughputRow*> ordered_rows(const ReportData& data,
                                               const std::string& workload) {
  std::vector<const ThroughputRow*> rows;
  for (const ThroughputRow& row : data.throughput) {
    if (workload_text(row) == workload) {
      rows.push_back(&row);
    }
  }
  const auto rank = [&data](const ThroughputRow* row) {
    return row->model == parent_name(data) ? 0 : row->model == child_name(data) ? 1 : 2;
  };
  std::stable_sort(rows.begin(), rows.end(),
                   [&rank](const auto* a, const auto* b) { return rank(a) < rank(b); });
  return rows;
}

bool has_prediction(const ThroughputRow& row) {
  return row.predicted_prefill_s.has_value() || row.predicted_generation_per_s.has_value();
}

// Engines whose times of sub-blocks the search predicts with, for people; empty if there are none.
std::string cost_engines(const ReportData& data) {
  std::set<std::string> engines;
  for (const CostRow& row : data.costs) {
    engines.insert(row.engine);
  }
  return join({engines.begin(), engines.end()}, " and ");
}

std::string why_unpredicted(const ReportData& data, const std::string& engine) {
  const std::string engines = cost_engines(data);
  if (engines.empty()) {
    return "Without predictions: no times of sub-blocks were measured.";
  }
  if (engines == engine) {
    return fmt::format(
        "Without predictions: the times of sub-blocks in {} were taken with other weight types "
        "than these files have.",
        engine);
  }
  return fmt::format(
      "Without predictions: the search's times of sub-blocks are of another engine, {}, and say "
      "nothing about these files in {}.",
      engines, engine);
}

std::string rate_chart(const ReportData& data, const std::string& workload, const std::string& id,
                       const std::string& phase, Rate (*rate_of)(const ThroughputRow&)) {
  const std::vector<const ThroughputRow*> rows = ordered_rows(data, workload);
  const bool predicted = std::ranges::any_of(
      rows, [rate_of](const ThroughputRow* row) { return rate_of(*row).predicted.has_value(); });
  BarChart chart;
  chart.text = {
      id, fmt::format("{}{}: {}", phase, predicted ? "" : ", measured", workload),
      fmt::format("Bars of {}measured tokens per second for every model; lines are the 10th to "
                  "90th percentile of the measurements.",
                  predicted ? "predicted and " : "")};
  chart.value_label = "tokens/s";
  BarSeries predictions{"predicted", 5, {}};
  BarSeries measurements{"measured", 0, {}};
  chart.width_px = 510;
  for (const ThroughputRow* row : rows) {
    const Rate rate = rate_of(*row);
    chart.groups.push_back(model_label(data, row->model));
    predictions.values.push_back(rate.predicted);
    measurements.values.push_back(rate.measured);
  }
  if (predicted) {
    chart.series.push_back(std::move(predictions));
  }
  chart.series.push_back(std::move(measurements));
  return render_chart(chart);
}

Cell rate_cell(const std::optional<BarValue>& value) {
  if (!value.has_value()) {
    return "–";
  }
  if (value->high > value->low) {
    return {format_significant(value->value),
            fmt::format("{}–{}", format_significant(value->low), format_significant(value->high))};
  }
  return format_significant(value->value);
}

Cell deviation_cell(const Rate& rate) {
  if (!rate.predicted.has_value() || !rate.measured.has_value() || rate.measured->value <= 0.0) {
    return "–";
  }
  return format_change(rate.predicted->value / rate.measured->value);
}

void add_speed_table(Markup& out, const ReportData& data, const std::string& workload) {
  const std::vector<const ThroughputRow*> timed = ordered_rows(data, workload);
  const bool predicted =
      std::ranges::any_of(timed, [](const ThroughputRow* row) { return has_prediction(*row); });
  std::vector<Column> columns = {{"model", false}};
  for (const char* phase : {"prefill", "generation"}) {
    if (predicted) {
      columns.push_back({fmt::format("{} predicted", phase)});
    }
    columns.push_back({fmt::format("{} measured", phase)});
    if (predicted) {
      columns.push_back({"deviation"});
    }
  }
  std::vector<TableRow> rows;
  for (const ThroughputRow* row : timed) {
    TableRow& line = rows.emplace_back();
    line.cells.emplace_back(model_label(data, row->model));
    line.is_ours = row->model == child_name(data);
    for (const Rate& rate : {prefill_rate(*row), generation_rate(*row)}) {
      if (predicted) {
        line.cells.push_back(rate_cell(rate.predicted));
      }
      line.cells.push_back(rate_cell(rate.measured));
      if (predicted) {
        line.cells.push_back(deviation_cell(rate));
      }
    }
  }
  add_table(out, columns, rows);
  if (!predicted && !timed.empty()) {
    out.element("p", why_unpredicted(data, timed.front()->engine));
  }
}

// One group of bars per workload: how many times faster the child is.
std::string scenario_chart(const std::vector<TimedPair>& pairs) {
  BarChart chart;
  chart.text = {"scenarios", "Child against parent, by workload",
                "Bars of the parent's time over the child's for every workload: prefill, "
                "generation, and both together."};
  chart.value_label = "times faster";
  chart.series = {{"prefill", 1, {}}, {"generation", 0, {}}, {"both", 5, {}}};
  for (const TimedPair& pair : pairs) {
    const ThroughputRow& parent = *pair.parent;
    const ThroughputRow& child = *pair.model;
    const double prefill = child.measured_prefill_s.value_or(0.0);
    chart.groups.push_back(fmt::format("{}/{}{}", child.prompt_tokens, child.generated_tokens,
                                       child.batch > 1 ? fmt::format(" ×{}", child.batch) : ""));
    chart.series[0].values.push_back(
        prefill > 0.0 ? plain(parent.measured_prefill_s.value_or(0.0) / prefill) : std::nullopt);
    chart.series[1].values.push_back(
        plain(*child.measured_generation_per_s / *parent.measured_generation_per_s));
    chart.series[2].values.push_back(plain(measured_total_s(parent) / measured_total_s(child)));
  }
  return render_chart(chart);
}

void add_scenarios(Markup& out, const ReportData& data) {
  const std::vector<TimedPair> pairs =
      timed_pairs(data.scenarios, parent_name(data), child_name(data));
  if (pairs.empty()) {
    return;
  }
  out.raw(scenario_chart(pairs));
  const bool predicted =
      std::ranges::any_of(pairs, [](const TimedPair& pair) { return has_prediction(*pair.model); });
  std::vector<Column> columns = {{"prompt / generated"}, {"batch"}};
  for (const char* parent : {"prefill, s: parent", "generation, tokens/s: parent"}) {
    columns.push_back({parent});
    columns.push_back({"child"});
    if (predicted) {
      columns.push_back({"deviation"});
    }
  }
  columns.push_back({"both, times faster"});
  std::vector<TableRow> rows;
  for (const TimedPair& pair : pairs) {
    const ThroughputRow& parent = *pair.parent;
    const ThroughputRow& child = *pair.model;
    const auto seconds = [](const ThroughputRow& row) -> Cell {
      return row.measured_prefill_s ? format_significant(*row.measured_prefill_s) : "–";
    };
    std::vector<Cell>& cells = rows.emplace_back().cells;
    cells = {fmt::format("{} / {}", child.prompt_tokens, child.generated_tokens),
             fmt::format("{}", child.batch), seconds(parent), seconds(child)};
    if (predicted) {
      cells.push_back(deviation_cell(prefill_rate(child)));
    }
    cells.push_back(rate_cell(generation_rate(parent).measured));
    cells.push_back(rate_cell(generation_rate(child).measured));
    if (predicted) {
      cells.push_back(deviation_cell(generation_rate(child)));
    }
    cells.emplace_back(format_ratio(measured_total_s(parent) / measured_total_s(child)));
  }
  add_table(out, columns, rows);
}

// Where no file was timed: what the search predicts all the same.
std::string untimed_text(const ReportData& data) {
  const ArchitectureRow* child = child_architecture(data);
  const auto rate = child == nullptr ? std::nullopt : cost_of(*child, "generation_tokens_per_s");
  if (!rate.has_value()) {
    return "No model's speed has been predicted or measured yet.";
  }
  const std::string engines = cost_engines(data);
  std::string text = "No exported file has been timed. The search predicts for the child";
  if (!engines.empty()) {
    text += ", from times of sub-blocks in " + engines;
  }
  text += fmt::format(": generation {} tokens/s", format_significant(*rate, 4));
  if (const auto prefill_s = cost_of(*child, "prefill_s"); prefill_s.has_value()) {
    text += ", prefill " + cost_text("prefill_s", *prefill_s);
  }
  return text + ".";
}

}  // namespace

PageSection speed_section(const ReportData& data) {
  const bool only_measured = std::ranges::none_of(data.throughput, has_prediction) &&
                             std::ranges::none_of(data.scenarios, has_prediction) &&
                             !(data.throughput.empty() && data.scenarios.empty());
  PageSection section{
      "speed", "Speed",
      only_measured
          ? "What the whole models really do, in tokens per second; small numbers and lines are "
            "the 10th to 90th percentile."
          : "What the costs of the single sub-blocks predict for the whole model, and what it "
            "really does, in tokens per second. Deviation is predicted ÷ measured − 1; small "
            "numbers and lines are the 10th to 90th percentile.",
      ""};
  Markup out;
  std::vector<std::string> workloads;
  for (const ThroughputRow& row : data.throughput) {
    if (std::find(workloads.begin(), workloads.end(), workload_text(row)) == workloads.end()) {
      workloads.push_back(workload_text(row));
    }
  }
  if (workloads.empty() && data.scenarios.empty()) {
    add_nothing(out, untimed_text(data));
  }
  for (std::size_t i = 0; i < workloads.size(); ++i) {
    out.open("div", {{"class", "pair"}});
    out.raw(rate_chart(data, workloads[i], fmt::format("generation-{}", i + 1), "Generation",
                       generation_rate));
    out.raw(
        rate_chart(data, workloads[i], fmt::format("prefill-{}", i + 1), "Prefill", prefill_rate));
    out.close();
    add_speed_table(out, data, workloads[i]);
  }
  add_scenarios(out, data);
  section.body = out.str();
  return section;
}

}  // namespace puzzle
