// Quality: the child beside its parent, and beside other children of the same budget.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/report/sections.h"

namespace puzzle {
namespace {

struct TaskMetric {
  std::string task;
  std::string metric;
  auto operator<=>(const TaskMetric&) const = default;
};

// Comparisons with the parent that other rows of the table show.
bool is_derived(const EvaluationRow& row) {
  return row.metric.ends_with("_minus_parent") || row.metric == "retention";
}

// What the child or the parent was asked: texts first, then tasks by name.
std::vector<TaskMetric> asked(const ReportData& data) {
  std::vector<TaskMetric> list;
  for (const EvaluationRow& row : data.evaluations) {
    const bool wanted = row.model == child_name(data) || row.model == parent_name(data);
    const TaskMetric item{row.task, row.metric};
    if (wanted && !is_derived(row) && std::find(list.begin(), list.end(), item) == list.end()) {
      list.push_back(item);
    }
  }
  std::set<std::string> texts;
  for (const TaskMetric& item : list) {
    const bool is_of_questions = item.metric == "answer_nats";
    if (is_lower_better(item.metric) && !is_of_questions) {
      texts.insert(item.task);
    }
  }
  std::sort(list.begin(), list.end(), [&texts](const TaskMetric& a, const TaskMetric& b) {
    return std::tuple(!texts.contains(a.task), a) < std::tuple(!texts.contains(b.task), b);
  });
  return list;
}

// Retention for what should be high, change for what should be low.
Cell relative_cell(const ReportData& data, const EvaluationRow* row) {
  if (row == nullptr || row->metric == "kl" || row->metric == "top1") {
    return "–";  // these are comparisons with the parent already
  }
  const auto relative = relative_to_parent(data, *row);
  if (!relative.has_value()) {
    return "–";
  }
  return estimate_cell(is_lower_better(row->metric)
                           ? format_change(relative->value, relative->error)
                           : format_percent(relative->value, relative->error));
}

// Models to compare: the parent, the child, its earlier states, the baselines; else by name.
std::vector<const ModelRow*> compared_models(const ReportData& data) {
  static const std::map<std::string, int> kRank = {
      {"parent", 0}, {"child", 1}, {"before", 2}, {"baseline", 3}};
  std::vector<const ModelRow*> models;
  models.reserve(data.models.size());
  for (const ModelRow& row : data.models) {
    models.push_back(&row);
  }
  const auto rank = [](const ModelRow* row) {
    const auto found = kRank.find(row->role);
    return found == kRank.end() ? 4 : found->second;
  };
  std::stable_sort(models.begin(), models.end(),
                   [&rank](const auto* a, const auto* b) { return rank(a) < rank(b); });
  return models;
}

std::string generation_text(const ReportData& data, const std::string& model) {
  const std::vector<TimedPair> pairs = speed_pairs(data, model);
  return pairs.empty() ? "–" : format_significant(*pairs.front().model->measured_generation_per_s);
}

Cell retention_cell(const ReportData& data, const std::string& model) {
  const auto retention = mean_retention(data, model);
  return retention.has_value()
             ? estimate_cell(format_percent(retention->mean.value, retention->mean.error))
             : "–";
}

TableRow comparison_row(const ReportData& data, const ModelRow& model) {
  const ArchitectureRow* architecture = find_architecture(data, model.architecture);
  const std::string size =
      model.file_bytes.has_value() ? human_bytes(static_cast<double>(*model.file_bytes))
      : model.weight_bytes > 0     ? human_bytes(static_cast<double>(model.weight_bytes))
                                   : "–";
  return {{model.label.empty() ? model.name : model.label,
           architecture == nullptr ? "–" : architecture->method,
           human_count(static_cast<double>(model.parameters)), size,
           generation_text(data, model.name), evaluation_cell(find_metric(data, model.name, "kl")),
           evaluation_cell(find_metric(data, model.name, "kl_minus_first")),
           evaluation_cell(find_metric(data, model.name, "top1")),
           evaluation_cell(find_metric(data, model.name, "perplexity")),
           retention_cell(data, model.name)},
          model.role == "child"};
}

// What to add to "children are as assembled unless their name says …".
std::string our_child_text(const ReportData& data) {
  if (find_role(data, "child") == nullptr) {
    return "";
  }
  const std::string steps = steps_text(child_steps(data));
  return steps.empty() ? "; so is our child" : "; our child was " + steps;
}

std::string damage_bars(const ReportData& data, const std::vector<const ModelRow*>& models) {
  BarChart chart;
  chart.text = {"children-kl", "KL to the parent on held-out text (shorter is better)",
                "One bar per child: how far its predictions are from the parent's; lines are two "
                "standard errors to each side."};
  chart.value_label = "nats per token";
  chart.width_px = 820;
  BarSeries series{"KL", 0, {}};
  for (const ModelRow* model : models) {
    const EvaluationRow* row = find_metric(data, model->name, "kl");
    if (model->role == "parent" || row == nullptr) {
      continue;
    }
    chart.groups.push_back(model->label.empty() ? model->name : model->label);
    series.values.emplace_back(BarValue{row->value, row->value - 2 * row->standard_error,
                                        row->value + 2 * row->standard_error});
  }
  chart.series.push_back(std::move(series));
  return render_chart(chart);
}

}  // namespace

Cell evaluation_cell(const EvaluationRow* row) {
  if (row == nullptr) {
    return "–";
  }
  const bool percent = is_fraction(row->metric);
  return estimate_cell(percent ? format_percent(row->value, row->standard_error)
                               : format_with_error(row->value, row->standard_error));
}

PageSection evaluation_section(const ReportData& data) {
  PageSection section{
      "evaluation", "Evaluation",
      "The child beside its parent, ± one standard error. The last column is child ÷ "
      "parent: the part kept where more is better, the change where less is better.",
      ""};
  Markup out;
  const std::vector<TaskMetric> list = asked(data);
  if (list.empty()) {
    add_nothing(out, "Nothing has been evaluated yet.");
    section.body = out.str();
    return section;
  }
  std::vector<TableRow> rows;
  for (const auto& [task, metric] : list) {
    const EvaluationRow* child = find_evaluation(data, child_name(data), task, metric);
    const EvaluationRow* parent = find_evaluation(data, parent_name(data), task, metric);
    const EvaluationRow* either = child != nullptr ? child : parent;
    rows.push_back({{task, metric_label(metric), fmt::format("{}", either->count),
                     evaluation_cell(parent), evaluation_cell(child), relative_cell(data, child)}});
  }
  add_table(
      out,
      {{"task", false}, {"metric", false}, {"count"}, {"parent"}, {"child"}, {"kept or change"}},
      rows);
  section.body = out.str();
  return section;
}

PageSection comparison_section(const ReportData& data) {
  PageSection section{
      "children", "Children",
      "Other ways to spend the same budget, on the same held-out text, ± one standard error. "
      "Differences are paired: both children read the same windows. Children are "
      "as assembled unless their name says that they were repaired or distilled" +
          our_child_text(data) + ".",
      ""};
  Markup out;
  const std::vector<const ModelRow*> models = compared_models(data);
  const auto num_children = std::count_if(
      models.begin(), models.end(), [](const ModelRow* row) { return row->role != "parent"; });
  if (num_children == 0) {
    add_nothing(out, "There are no children to compare yet.");
    section.body = out.str();
    return section;
  }
  out.raw(damage_bars(data, models));
  std::vector<TableRow> rows;
  rows.reserve(models.size());
  for (const ModelRow* model : models) {
    rows.push_back(comparison_row(data, *model));
  }
  add_table(out,
            {{"model", false},
             {"search", false},
             {"parameters"},
             {"size"},
             {"generation, tokens/s"},
             {"KL, nats/token"},
             {"KL beyond our child's"},
             {"top-1 agreement"},
             {"perplexity"},
             {"task accuracy kept"}},
            rows);
  section.body = out.str();
  return section;
}

}  // namespace puzzle
