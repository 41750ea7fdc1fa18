#include "puzzle/report/report_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/results/sum_ratio.h"

namespace puzzle {
namespace {

constexpr const char* kMinusParent = "_minus_parent";

Json parse_detail(const std::string& text, const ArchitectureRow& row) {
  return parse_json(text, "architecture " + row.name);
}

// The metric that stands for a task's accuracy in the mean; empty if it has none.
std::string accuracy_metric(const ReportData& data, std::string_view model, std::string_view task) {
  for (const char* metric : {"accuracy_norm", "accuracy"}) {
    if (find_evaluation(data, model, task, metric) != nullptr) {
      return metric;
    }
  }
  return {};
}

// The step that led to this state of our child; nothing for the child as assembled.
std::optional<ChildStep> step_to(const ReportData& data, const std::string& state) {
  const auto curve = std::ranges::find_if(data.curves, [&state](const CurveRow& row) {
    return row.stage == "distill-child" && row.series == state;
  });
  if (curve != data.curves.end()) {
    const auto record = std::ranges::find(data.stages, curve->key, &StageRecord::key);
    return record == data.stages.end() ? ChildStep::kDistillation : kept_step(*record);
  }
  for (const StageRecord& record : data.stages) {
    if (record.stage == "repair" && record.what == state && kept_step(record).has_value()) {
      return ChildStep::kRepair;
    }
  }
  return std::nullopt;
}

std::optional<double> half_range(const ThroughputRow& row) {
  if (!row.generation_p10_per_s.has_value() || !row.generation_p90_per_s.has_value()) {
    return std::nullopt;
  }
  return std::abs(*row.generation_p90_per_s - *row.generation_p10_per_s) / 2;
}

}  // namespace

ReportData load_report_data(const RunDb& db) {
  ReportData data;
  data.facts = load_facts(db);
  data.parent = load_parent(db);
  data.machine = load_machine(db);
  data.stages = db.stages();
  data.scores = db.scores();
  data.curves = db.curves();
  data.architectures = db.architectures();
  data.variants = db.variants();
  data.models = db.models();
  data.evaluations = db.evaluations();
  data.throughput = run_throughput(db);
  data.scenarios = scenario_throughput(db);
  data.comparisons = load_comparisons(db);
  data.costs = db.costs();
  return data;
}

const ModelRow* find_role(const ReportData& data, std::string_view role) {
  const auto found = std::find_if(data.models.begin(), data.models.end(),
                                  [role](const ModelRow& row) { return row.role == role; });
  return found == data.models.end() ? nullptr : &*found;
}

const ModelRow* find_model(const ReportData& data, std::string_view name) {
  const auto found = std::find_if(data.models.begin(), data.models.end(),
                                  [name](const ModelRow& row) { return row.name == name; });
  return found == data.models.end() ? nullptr : &*found;
}

std::string model_label(const ReportData& data, const std::string& name) {
  const ModelRow* model = find_model(data, name);
  return model == nullptr || model->label.empty() ? name : model->label;
}

std::string child_name(const ReportData& data) {
  const ModelRow* child = find_role(data, "child");
  return child == nullptr ? "child" : child->name;
}

std::string parent_name(const ReportData& data) {
  const ModelRow* parent = find_role(data, "parent");
  return parent == nullptr ? "parent" : parent->name;
}

std::vector<ChildStep> child_steps(const ReportData& data) {
  std::vector<std::string> states;  // their names are in the order of the steps
  for (const ModelRow& row : data.models) {
    if (row.role == "before") {
      states.push_back(row.name);
    }
  }
  if (states.empty()) {
    return {};
  }
  states.push_back(child_name(data));
  std::vector<ChildStep> steps;
  for (const std::string& state : states) {
    if (const std::optional<ChildStep> step = step_to(data, state); step.has_value()) {
      steps.push_back(*step);
    }
  }
  return steps;
}

const ArchitectureRow* find_architecture(const ReportData& data, std::string_view name) {
  // Rows are ordered by name and solution: the first is the best.
  const auto found = std::find_if(data.architectures.begin(), data.architectures.end(),
                                  [name](const ArchitectureRow& row) { return row.name == name; });
  return found == data.architectures.end() ? nullptr : &*found;
}

const ArchitectureRow* child_architecture(const ReportData& data) {
  const ModelRow* child = find_role(data, "child");
  if (child != nullptr && !child->architecture.empty()) {
    return find_architecture(data, child->architecture);
  }
  if (const ArchitectureRow* row = find_architecture(data, "child"); row != nullptr) {
    return row;
  }
  const auto found = std::find_if(
      data.architectures.begin(), data.architectures.end(), [](const ArchitectureRow& row) {
        return row.method == "mip" && detail_text(row, "swept_cost").empty();
      });
  return found == data.architectures.end() ? nullptr : &*found;
}

Architecture parse_architecture(const ArchitectureRow& row) { return parse_blocks(row.blocks); }

std::optional<double> detail_number(const ArchitectureRow& row, const char* name) {
  const Json detail = parse_detail(row.detail_json, row);
  const auto found = detail.find(name);
  return found == detail.end() || !found->is_number() ? std::nullopt
                                                      : std::optional(found->get<double>());
}

std::string detail_text(const ArchitectureRow& row, const char* name) {
  const Json detail = parse_detail(row.detail_json, row);
  const auto found = detail.find(name);
  return found == detail.end() || !found->is_string() ? "" : found->get<std::string>();
}

bool is_swept(const ArchitectureRow& row) { return !detail_text(row, "swept_cost").empty(); }

std::vector<std::pair<std::string, double>> costs_of(const ArchitectureRow& row) {
  std::vector<std::pair<std::string, double>> costs;
  const Json parsed = parse_detail(row.costs_json, row);
  for (const auto& [name, value] : parsed.items()) {
    if (value.is_number()) {
      costs.emplace_back(name, value.get<double>());
    }
  }
  return costs;
}

std::optional<double> cost_of(const ArchitectureRow& row, std::string_view cost) {
  for (const auto& [name, value] : costs_of(row)) {
    if (name == cost) {
      return value;
    }
  }
  return std::nullopt;
}

bool is_lower_better(std::string_view metric) {
  static const std::set<std::string_view> kLower = {"kl", "loss", "perplexity", "bits_per_byte",
                                                    "answer_nats"};
  return kLower.contains(metric);
}

bool is_fraction(std::string_view metric) {
  return metric == "top1" || metric == "retention" || metric.starts_with("accuracy") ||
         metric.ends_with("_fraction");
}

std::string metric_label(std::string_view metric) {
  static const std::map<std::string_view, const char*> kLabels = {
      {"kl", "KL to the parent, nats/token"},
      {"loss", "loss, nats/token"},
      {"lm_loss", "loss over the parent's, nats/token"},
      {"downstream", "accuracy lost on questions"},
      {"perplexity", "perplexity"},
      {"bits_per_byte", "bits per byte"},
      {"top1", "top-1 agreement with the parent"},
      {"retention", "kept"},
      {"accuracy", "accuracy"},
      {"answer_nats", "−log p of the right answer, nats"},
      {"found_fraction", "expected strings found"},
      {"accuracy_norm", "accuracy, length-normalised"}};
  const auto found = kLabels.find(metric);
  if (found != kLabels.end()) {
    return found->second;
  }
  std::string label(metric);
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

const EvaluationRow* find_evaluation(const ReportData& data, std::string_view model,
                                     std::string_view task, std::string_view metric) {
  const auto found =
      std::find_if(data.evaluations.begin(), data.evaluations.end(), [&](const EvaluationRow& row) {
        return row.model == model && row.task == task && row.metric == metric;
      });
  return found == data.evaluations.end() ? nullptr : &*found;
}

const EvaluationRow* find_metric(const ReportData& data, std::string_view model,
                                 std::string_view metric) {
  const auto found = std::find_if(
      data.evaluations.begin(), data.evaluations.end(),
      [&](const EvaluationRow& row) { return row.model == model && row.metric == metric; });
  return found == data.evaluations.end() ? nullptr : &*found;
}

std::optional<Estimate> relative_to_parent(const ReportData& data, const EvaluationRow& row) {
  const EvaluationRow* parent = find_evaluation(data, parent_name(data), row.task, row.metric);
  if (parent == nullptr || parent == &row || parent->value == 0.0) {
    return std::nullopt;
  }
  const double ratio = row.value / parent->value;
  const auto paired = [&](std::string_view metric) {
    return find_evaluation(data, row.model, row.task, std::string(metric) + kMinusParent);
  };
  if (const EvaluationRow* difference = paired(row.metric); difference != nullptr) {
    return Estimate{ratio, ratio_error(row.value, parent->value,
                                       {row.standard_error, parent->standard_error,
                                        difference->standard_error})};
  }
  // A ratio of perplexities is the exponential of a difference of losses.
  if (const EvaluationRow* loss = paired("loss"); loss != nullptr && row.metric == "perplexity") {
    return Estimate{ratio, ratio * loss->standard_error};
  }
  if (row.standard_error == 0.0 && parent->standard_error == 0.0) {
    return Estimate{ratio, 0.0};
  }
  return Estimate{ratio, std::hypot(row.standard_error, ratio * parent->standard_error) /
                             std::abs(parent->value)};
}

std::optional<Retention> mean_retention(const ReportData& data, std::string_view model) {
  std::set<std::string> tasks;
  for (const EvaluationRow& row : data.evaluations) {
    if (row.model == model) {
      tasks.insert(row.task);
    }
  }
  Retention retention;
  double squares = 0.0;
  for (const std::string& task : tasks) {
    const std::string metric = accuracy_metric(data, model, task);
    const EvaluationRow* row = find_evaluation(data, model, task, metric);
    const auto relative = row == nullptr ? std::nullopt : relative_to_parent(data, *row);
    if (relative.has_value()) {
      retention.mean.value += relative->value;
      squares += relative->error * relative->error;
      ++retention.num_tasks;
    }
  }
  if (retention.num_tasks == 0) {
    return std::nullopt;
  }
  const auto count = static_cast<double>(retention.num_tasks);
  retention.mean = {retention.mean.value / count, std::sqrt(squares) / count};
  return retention;
}

std::vector<TimedPair> speed_pairs(const ReportData& data, std::string_view model) {
  std::vector<TimedPair> pairs =
      timed_pairs(data.throughput, parent_name(data), std::string(model));
  std::stable_partition(pairs.begin(), pairs.end(),
                        [](const TimedPair& pair) { return pair.model->engine == "llama-server"; });
  return pairs;
}

Estimate generation_speed_up(const TimedPair& pair) {
  const double parent = *pair.parent->measured_generation_per_s;
  const double model = *pair.model->measured_generation_per_s;
  const double ratio = model / parent;
  const auto parent_range = half_range(*pair.parent);
  const auto model_range = half_range(*pair.model);
  if (!parent_range.has_value() || !model_range.has_value() || model <= 0.0) {
    return {ratio, 0.0};
  }
  return {ratio, ratio * std::hypot(*parent_range / parent, *model_range / model)};
}

std::string workload_text(const ThroughputRow& row) {
  return fmt::format("{}, batch {}, {} + {} tokens", row.engine, row.batch, row.prompt_tokens,
                     row.generated_tokens);
}

}  // namespace puzzle
