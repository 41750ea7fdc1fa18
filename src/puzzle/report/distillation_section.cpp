// Training curves: block-local and global distillation.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

constexpr std::size_t kMostPoints = 200;

struct VariantSummary {
  double before = 0.0;
  double after = 0.0;
  std::int64_t num_layers = 0;
  std::int64_t num_trained = 0;
  std::int64_t num_kept_after = 0;
  std::int64_t tokens = 0;
};

// Attention before FFN, large before small, linear, none; what is no variant's name comes last.
struct VariantOrder {
  static std::tuple<int, int, std::int64_t, std::string> rank(const std::string& name) {
    const auto slash = name.find('/');
    const std::string half = name.substr(0, slash);
    const std::string variant = slash == std::string::npos ? name : name.substr(slash + 1);
    const int half_rank = half == "attention" ? 0 : half == "ffn" ? 1 : 2;
    std::int64_t size = 0;
    for (const char c : variant) {
      size = c >= '0' && c <= '9' ? std::min<std::int64_t>(size * 10 + (c - '0'), 1 << 30) : size;
    }
    const int kind = variant == "linear" ? 1 : variant == "none" ? 2 : 0;
    return {half_rank, kind, -size, name};
  }
  bool operator()(const std::string& a, const std::string& b) const { return rank(a) < rank(b); }
};

using VariantTable = std::map<std::string, VariantSummary, VariantOrder>;

// The last stage that touched the library: distill-blocks where it ran, else init-library.
std::string library_stage(const ReportData& data) {
  const bool trained =
      std::any_of(data.variants.begin(), data.variants.end(),
                  [](const VariantRow& row) { return row.stage == "distill-blocks"; });
  return trained ? "distill-blocks" : "init-library";
}

VariantTable summarise(const ReportData& data) {
  VariantTable table;
  const std::string stage = library_stage(data);
  for (const VariantRow& row : data.variants) {
    if (row.stage != stage) {
      continue;
    }
    VariantSummary& summary = table[row.variant];
    const bool kept_after = row.kept == "after" && row.error_after.has_value();
    summary.before += row.error_before;
    summary.after += kept_after ? *row.error_after : row.error_before;
    summary.num_layers += 1;
    summary.num_trained += row.error_after.has_value() ? 1 : 0;
    summary.num_kept_after += kept_after ? 1 : 0;
    summary.tokens = std::max(summary.tokens, row.tokens);
  }
  for (auto& [name, summary] : table) {
    summary.before /= static_cast<double>(summary.num_layers);
    summary.after /= static_cast<double>(summary.num_layers);
  }
  return table;
}

void add_variant_table(Markup& out, const VariantTable& table) {
  std::vector<TableRow> rows;
  for (const auto& [name, summary] : table) {
    const bool trained = summary.num_trained > 0;
    const bool comparable = trained && summary.before > 0.0;
    rows.push_back(
        {{name, fmt::format("{}", summary.num_layers),
          human_count(static_cast<double>(summary.tokens)), format_significant(summary.before),
          trained ? format_significant(summary.after) : "–",
          comparable ? format_change(summary.after / summary.before) : "–",
          trained ? fmt::format("{} of {}", summary.num_kept_after, summary.num_trained)
                  : "not trained"}});
  }
  add_table(out,
            {{"variant", false},
             {"layers"},
             {"tokens"},
             {"error before"},
             {"error after"},
             {"change"},
             {"training kept"}},
            rows);
}

void add_layer_errors(Markup& out, const ReportData& data, const VariantTable& table) {
  const std::string stage = library_stage(data);
  std::map<std::int64_t, std::map<std::string, const VariantRow*>> layers;
  for (const VariantRow& row : data.variants) {
    if (row.stage == stage) {
      layers[row.layer][row.variant] = &row;
    }
  }
  std::vector<Column> columns = {{"layer", false}};
  for (const auto& [name, summary] : table) {
    columns.push_back({name});
  }
  std::vector<TableRow> rows;
  for (const auto& [layer, variants] : layers) {
    TableRow& line = rows.emplace_back();
    line.cells.emplace_back(fmt::format("{}", layer));
    for (const auto& [name, summary] : table) {
      const auto found = variants.find(name);
      if (found == variants.end()) {
        line.cells.emplace_back("–");
        continue;
      }
      const VariantRow& row = *found->second;
      std::string text = format_significant(row.error_before);
      if (row.error_after.has_value()) {
        text += " → " + format_significant(*row.error_after);
      }
      line.cells.emplace_back(std::move(text));
    }
  }
  open_details(out, "Every layer, error before → after");
  add_table(out, columns, rows);
  out.close();
}

// The metric of a stage's curves to show: the first of `wanted` that has rows.
std::string curve_metric(const ReportData& data, std::string_view stage,
                         std::initializer_list<const char*> wanted) {
  for (const char* metric : wanted) {
    for (const CurveRow& row : data.curves) {
      if (row.stage == stage && row.metric == metric) {
        return metric;
      }
    }
  }
  return {};
}

// Held-out curves are not of all the held-out tokens that the library's rows are of.
bool is_of_first_batches(const std::string& metric) { return metric.starts_with("heldout_"); }

std::string block_curve_metric(const ReportData& data) {
  return curve_metric(data, "distill-blocks", {"heldout_error", "heldout_loss", "loss"});
}

// Mean over layers of "layer N/variant", at the steps that every layer of the variant has.
std::string block_curves(const ReportData& data) {
  const std::string metric = block_curve_metric(data);
  std::map<std::string, std::map<std::int64_t, std::vector<double>>, VariantOrder> curves;
  std::map<std::string, std::set<std::string>> series_of;
  for (const CurveRow& row : data.curves) {
    if (row.stage != "distill-blocks" || row.metric != metric) {
      continue;
    }
    const auto slash = row.series.find('/');
    const std::string variant =
        slash == std::string::npos ? row.series : row.series.substr(slash + 1);
    curves[variant][row.tokens].push_back(row.value);
    series_of[variant].insert(row.series);
  }
  XyChart chart;
  chart.text = {"block-curves",
                fmt::format("Mean {} over the layers, by variant{}",
                            metric == "heldout_error" ? "held-out error" : metric_label(metric),
                            is_of_first_batches(metric) ? ", on the first held-out batches" : ""),
                "One falling line per variant: its error during block-local distillation, averaged "
                "over all layers."};
  chart.x = {.label = "tokens trained on", .tight = true};
  chart.y = {.label = metric == "heldout_error" ? "error (1 = nothing)" : metric_label(metric),
             .log = true};
  chart.width_px = 1040;
  chart.height_px = 400;
  for (const auto& [variant, points] : curves) {
    XySeries series{
        .name = variant,
        .colour = chart.series.size(),
        .look = chart.series.size() >= kNumColours ? LineLook::kDashed : LineLook::kSolid,
        .points = {}};
    for (const auto& [tokens, values] : points) {
      if (values.size() == series_of[variant].size()) {
        double sum = 0.0;
        for (const double value : values) {
          sum += value;
        }
        series.points.push_back(
            {static_cast<double>(tokens), sum / static_cast<double>(values.size())});
      }
    }
    series.points = thin_out(series.points, 60);
    chart.series.push_back(std::move(series));
  }
  return render_chart(chart);
}

// In training "loss" is the weighted sum that is minimised, not the language model's.
std::string objective_label(const std::string& quantity) {
  if (quantity == "loss") {
    return "Objective: weighted sum of the losses";
  }
  return metric_label(quantity);
}

// One chart per quantity: "kl" and "heldout_kl" share one.
std::string child_curves(const ReportData& data, const std::string& quantity, std::size_t number) {
  XyChart chart;
  chart.text = {fmt::format("child-curves-{}", number), objective_label(quantity),
                "Training and held-out values over the tokens trained on."};
  chart.x = {.label = "tokens trained on", .tight = true};
  chart.y.label = objective_label(quantity);
  chart.width_px = 510;
  chart.height_px = 320;
  std::map<std::string, std::vector<ChartPoint>> training;
  std::map<std::string, std::vector<ChartPoint>> heldout;
  for (const CurveRow& row : data.curves) {
    if (row.stage != "distill-child") {
      continue;
    }
    const ChartPoint point{static_cast<double>(row.tokens), row.value};
    if (row.metric == quantity) {
      training[row.series].push_back(point);
    } else if (row.metric == "heldout_" + quantity) {
      heldout[row.series].push_back(point);
    }
  }
  std::set<std::string> names;
  for (const auto* curves : {&training, &heldout}) {
    for (const auto& [name, points] : *curves) {
      names.insert(name);
    }
  }
  std::size_t colour = 0;
  for (const std::string& name : names) {
    const std::string label = model_label(data, name);
    chart.series.push_back({.name = label + ", training",
                            .colour = colour,
                            .style = SeriesStyle::kLine,
                            .look = LineLook::kFaint,
                            .points = thin_out(training[name], kMostPoints)});
    chart.series.push_back({.name = label + ", held out",
                            .colour = colour,
                            .points = thin_out(heldout[name], kMostPoints)});
    ++colour;
  }
  return render_chart(chart);
}

// "Our child: held-out KL 0.43 → 0.31 nats/token over 41 k tokens."
void add_child_summary(Markup& out, const ReportData& data) {
  std::map<std::string, std::pair<const CurveRow*, const CurveRow*>> ends;
  for (const CurveRow& row : data.curves) {
    if (row.stage == "distill-child" && row.metric == "heldout_kl") {
      auto& [first, best] = ends[row.series];
      first = first == nullptr ? &row : first;
      best = best == nullptr || row.value < best->value ? &row : best;
    }
  }
  for (const auto& [name, rows] : ends) {
    out.element("p", fmt::format("{}: held-out KL {} → {} nats/token, best after {} tokens.",
                                 model_label(data, name), format_significant(rows.first->value),
                                 format_significant(rows.second->value),
                                 human_count(static_cast<double>(rows.second->tokens))));
  }
}

}  // namespace

std::vector<ChartPoint> thin_out(const std::vector<ChartPoint>& points, std::size_t limit) {
  if (points.size() <= limit) {
    return points;
  }
  std::vector<ChartPoint> thin;
  for (std::size_t bucket = 0; bucket < limit; ++bucket) {
    const std::size_t begin = bucket * points.size() / limit;
    const std::size_t end = (bucket + 1) * points.size() / limit;
    ChartPoint mean;
    for (std::size_t i = begin; i < end; ++i) {
      mean.x += points[i].x / static_cast<double>(end - begin);
      mean.y += points[i].y / static_cast<double>(end - begin);
    }
    thin.push_back(mean);
  }
  return thin;
}

PageSection block_distillation_section(const ReportData& data) {
  const bool trained = library_stage(data) == "distill-blocks";
  PageSection section{
      "blocks", "Block library",
      fmt::format("Every variant is {} to do what the parent's sub-block does on the same input. "
                  "Error: squared distance of the outputs over that of leaving the sub-block out, "
                  "held-out tokens, mean over the layers.{}",
                  trained ? "fitted, then trained" : "fitted",
                  trained ? " The better of before and after is kept." : ""),
      ""};
  Markup out;
  const VariantTable table = summarise(data);
  const std::string curves = block_curves(data);
  if (table.empty() && curves.empty()) {
    add_nothing(out, "The library has not been built yet.");
  }
  if (curves.empty() && !table.empty()) {
    add_nothing(out, "No curves: the variants were not trained.");
  }
  out.raw(curves);
  if (!curves.empty() && !table.empty() && is_of_first_batches(block_curve_metric(data))) {
    out.element(
        "p",
        "The curves are of the first held-out batches alone (distill_blocks.curve_batches), "
        "the table is of all held-out tokens (distill_blocks.validation_tokens), which "
        "decide what is kept: where the two differ, trust the table.");
  }
  if (!table.empty()) {
    add_variant_table(out, table);
    add_layer_errors(out, data, table);
  }
  section.body = out.str();
  return section;
}

PageSection child_distillation_section(const ReportData& data) {
  PageSection section{"distillation", "Distillation",
                      "The assembled child, trained end to end to give the parent's distribution. "
                      "The state with the lowest held-out KL is kept.",
                      ""};
  Markup out;
  // The KL first: it is what the stage keeps the best of.
  const auto kl_first = [](const std::string& a, const std::string& b) {
    return std::tuple(a != "kl", a) < std::tuple(b != "kl", b);
  };
  std::set<std::string, decltype(kl_first)> quantities(kl_first);
  for (const CurveRow& row : data.curves) {
    if (row.stage == "distill-child" && row.metric != "learning_rate") {
      const std::string heldout = "heldout_";
      quantities.insert(row.metric.starts_with(heldout) ? row.metric.substr(heldout.size())
                                                        : row.metric);
    }
  }
  if (quantities.empty()) {
    section.lead.clear();
    add_nothing(out, "The child has not been distilled.");
  } else {
    add_child_summary(out, data);
    out.open("div", {{"class", "pair"}});
    std::size_t number = 0;
    for (const std::string& quantity : quantities) {
      out.raw(child_curves(data, quantity, ++number));
    }
    out.close();
  }
  section.body = out.str();
  return section;
}

}  // namespace puzzle
