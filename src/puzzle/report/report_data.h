// A run, loaded once, and the questions the report's sections ask of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/results/comparison.h"
#include "puzzle/results/facts.h"
#include "puzzle/results/run_db.h"
#include "puzzle/results/throughput_rows.h"

namespace puzzle {

// A value and its standard error; 0 = not known.
struct Estimate {
  double value = 0.0;
  double error = 0.0;
};

struct ReportData {
  RunFacts facts;
  std::optional<ParentFacts> parent;
  std::optional<MachineFacts> machine;
  std::vector<StageRecord> stages;  // of every recipe that the folder has seen
  std::vector<ScoreRow> scores;
  std::vector<CurveRow> curves;
  std::vector<ArchitectureRow> architectures;
  std::vector<VariantRow> variants;
  std::vector<ModelRow> models;
  std::vector<EvaluationRow> evaluations;
  std::vector<ThroughputRow> throughput;  // of the run's own workload
  std::vector<ThroughputRow> scenarios{};
  std::vector<Comparison> comparisons{};  // of `puzzle compare`, by name
  std::vector<CostRow> costs{};           // that the search predicts with
};

// Current rows only.
[[nodiscard]] ReportData load_report_data(const RunDb& db);

// The model of a role ("parent", "child"); null if there is none.
[[nodiscard]] const ModelRow* find_role(const ReportData& data, std::string_view role);
[[nodiscard]] const ModelRow* find_model(const ReportData& data, std::string_view name);
// What to call a model: its label, else its name.
[[nodiscard]] std::string model_label(const ReportData& data, const std::string& name);
// The name under which the child's rows stand ("child" if no ModelRow says otherwise).
[[nodiscard]] std::string child_name(const ReportData& data);
[[nodiscard]] std::string parent_name(const ReportData& data);
// What was done to our child after it was assembled, as its earlier states and curves tell.
[[nodiscard]] std::vector<ChildStep> child_steps(const ReportData& data);

// The best solution of that name; null if there is none.
[[nodiscard]] const ArchitectureRow* find_architecture(const ReportData& data,
                                                       std::string_view name);
// The child's own architecture; if no model names it, the one called "child", else the first of
// the search that is no point of a sweep.
[[nodiscard]] const ArchitectureRow* child_architecture(const ReportData& data);
// Throws Error(kFormat) for a name that is no block.
[[nodiscard]] Architecture parse_architecture(const ArchitectureRow& row);
// A member of detail_json; empty if absent or of another type.
[[nodiscard]] std::optional<double> detail_number(const ArchitectureRow& row, const char* name);
[[nodiscard]] std::string detail_text(const ArchitectureRow& row, const char* name);
// Whether it is a point of the swept curve.
[[nodiscard]] bool is_swept(const ArchitectureRow& row);
// costs_json as pairs in the order of names; members that are no numbers are left out.
[[nodiscard]] std::vector<std::pair<std::string, double>> costs_of(const ArchitectureRow& row);
[[nodiscard]] std::optional<double> cost_of(const ArchitectureRow& row, std::string_view cost);

[[nodiscard]] bool is_lower_better(std::string_view metric);
[[nodiscard]] bool is_fraction(std::string_view metric);  // shown in percent
[[nodiscard]] std::string metric_label(std::string_view metric);

[[nodiscard]] const EvaluationRow* find_evaluation(const ReportData& data, std::string_view model,
                                                   std::string_view task, std::string_view metric);
// The first task's value of a metric.
[[nodiscard]] const EvaluationRow* find_metric(const ReportData& data, std::string_view model,
                                               std::string_view metric);
// model / parent for one task and metric. The error is that of the paired difference where the run
// recorded it ("<metric>_minus_parent"), else both errors as if independent.
[[nodiscard]] std::optional<Estimate> relative_to_parent(const ReportData& data,
                                                         const EvaluationRow& row);
// Mean of model / parent over the tasks with an accuracy (the length-normalised one where there are
// both); errors as if tasks were independent.
struct Retention {
  Estimate mean;
  std::size_t num_tasks = 0;
};
[[nodiscard]] std::optional<Retention> mean_retention(const ReportData& data,
                                                      std::string_view model);

// First the engines in which files are exported to run (llama-server), then by name.
[[nodiscard]] std::vector<TimedPair> speed_pairs(const ReportData& data, std::string_view model);
// Generation tokens/s of model over parent. The error is half the p10–p90 range of both.
[[nodiscard]] Estimate generation_speed_up(const TimedPair& pair);
[[nodiscard]] std::string workload_text(const ThroughputRow& row);  // "llama-server, batch 1, …"

}  // namespace puzzle
