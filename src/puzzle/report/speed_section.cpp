// Predicted against measured speed.
#include <algorithm>
#include <map>

#include <fmt/format.h>

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

std::string rate_chart(const ReportData& data, const std::string& workload, const std::string& id,
                       const std::string& phase, Rate (*rate_of)(const ThroughputRow&)) {
  BarChart chart;
  chart.text = {
      id, fmt::format("{}: {}", phase, workload),
      "Bars of predicted and measured tokens per second for every model; lines are the 10th "
      "to 90th percentile of the measurements."};
  chart.value_label = "tokens/s";
  chart.series = {{"predicted", 5, {}}, {"measured", 0, {}}};
  chart.width_px = 510;
  for (const ThroughputRow* row : ordered_rows(data, workload)) {
    const Rate rate = rate_of(*row);
    chart.groups.push_back(model_label(data, row->model));
    chart.series[0].values.push_back(rate.predicted);
    chart.series[1].values.push_back(rate.measured);
  }
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
  const std::vector<Column> columns = {
      {"model", false},         {"prefill predicted"},   {"prefill measured"}, {"deviation"},
      {"generation predicted"}, {"generation measured"}, {"deviation"}};
  std::vector<TableRow> rows;
  for (const ThroughputRow* row : ordered_rows(data, workload)) {
    const Rate prefill = prefill_rate(*row);
    const Rate generation = generation_rate(*row);
    rows.push_back(
        {{model_label(data, row->model), rate_cell(prefill.predicted), rate_cell(prefill.measured),
          deviation_cell(prefill), rate_cell(generation.predicted), rate_cell(generation.measured),
          deviation_cell(generation)},
         row->model == child_name(data)});
  }
  add_table(out, columns, rows);
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
  const std::vector<Column> columns = {{"prompt / generated"},
                                       {"batch"},
                                       {"prefill, s: parent"},
                                       {"child"},
                                       {"deviation"},
                                       {"generation, tokens/s: parent"},
                                       {"child"},
                                       {"deviation"},
                                       {"both, times faster"}};
  std::vector<TableRow> rows;
  for (const TimedPair& pair : pairs) {
    const ThroughputRow& parent = *pair.parent;
    const ThroughputRow& child = *pair.model;
    const auto seconds = [](const ThroughputRow& row) -> Cell {
      return row.measured_prefill_s ? format_significant(*row.measured_prefill_s) : "–";
    };
    rows.push_back(
        {{fmt::format("{} / {}", child.prompt_tokens, child.generated_tokens),
          fmt::format("{}", child.batch), seconds(parent), seconds(child),
          deviation_cell(prefill_rate(child)), rate_cell(generation_rate(parent).measured),
          rate_cell(generation_rate(child).measured), deviation_cell(generation_rate(child)),
          format_ratio(measured_total_s(parent) / measured_total_s(child))},
         false});
  }
  add_table(out, columns, rows);
}

}  // namespace

PageSection speed_section(const ReportData& data) {
  PageSection section{
      "speed", "Speed",
      "What the costs of the single sub-blocks predict for the whole model, and what "
      "it really does, in tokens per second. Deviation is predicted ÷ measured − 1; small numbers "
      "and lines are the 10th to 90th percentile.",
      ""};
  Markup out;
  std::vector<std::string> workloads;
  for (const ThroughputRow& row : data.throughput) {
    if (std::find(workloads.begin(), workloads.end(), workload_text(row)) == workloads.end()) {
      workloads.push_back(workload_text(row));
    }
  }
  if (workloads.empty() && data.scenarios.empty()) {
    add_nothing(out, "No model's speed has been predicted or measured yet.");
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
