#include "puzzle/app/run_result.h"

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "puzzle/app/pipeline.h"
#include "puzzle/app/scenario_text.h"
#include "puzzle/app/stage_times.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/report/number.h"
#include "puzzle/results/throughput_rows.h"

namespace puzzle {
namespace {

const ThroughputRow* find_timed(const std::vector<ThroughputRow>& rows, const std::string& model) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const ThroughputRow& row) {
    return row.model == model && row.measured_prefill_s && row.measured_generation_per_s;
  });
  return found == rows.end() ? nullptr : &*found;
}

const ModelRow* find_model(const std::vector<ModelRow>& rows, const std::string& name) {
  const auto found =
      std::find_if(rows.begin(), rows.end(), [&](const ModelRow& row) { return row.name == name; });
  return found == rows.end() ? nullptr : &*found;
}

// A measured cost by the name that budgets use.
double measured_cost(const ThroughputRow& row, const SearchCost& cost) {
  const auto batch = static_cast<double>(row.batch);
  const auto prompt = static_cast<double>(row.prompt_tokens);
  const auto generated = static_cast<double>(row.generated_tokens);
  const double generation_s = measured_generation_s(row);
  const double total_s = measured_total_s(row);
  if (cost.name == "prefill_s") {
    return *row.measured_prefill_s;
  }
  if (cost.name == "generation_s") {
    return generation_s;
  }
  if (cost.name == "total_s") {
    return total_s;
  }
  return cost.name == "total_tokens_per_s" ? batch * (prompt + generated) / total_s
                                           : *row.measured_generation_per_s;
}

bool within(const BudgetSpec& spec, double value, double parent) {
  const double bound = spec.relative ? spec.value * parent : spec.value;
  return spec.cost->is_rate() ? is_at_most(bound, value) : is_at_most(value, bound);
}

Json stages_json(const RunDb& db) {
  Json stages = Json::array();
  for (const StageTotal& total : stage_totals(db, stage_names())) {
    stages.push_back({{"stage", total.stage},
                      {"seconds", total.seconds},
                      {"peak_memory_bytes", total.peak_memory_bytes}});
  }
  return stages;
}

Json variants_json(const RunDb& db) {
  Json variants = Json::array();
  for (const VariantRow& row : db.variants()) {
    variants.push_back({{"layer", row.layer},
                        {"variant", row.variant},
                        {"stage", row.stage},
                        {"error_before", row.error_before},
                        {"error_after", optional_json(row.error_after)},
                        {"kept", row.kept}});
  }
  return variants;
}

Json scores_json(const RunDb& db) {
  Json scores = Json::array();
  for (const ScoreRow& row : db.scores()) {
    scores.push_back({{"layer", row.layer},
                      {"block", row.block},
                      {"metric", row.metric},
                      {"value", row.value},
                      {"standard_error", row.standard_error},
                      {"tokens", row.tokens}});
  }
  return scores;
}

Json costs_json(const RunDb& db) {
  Json costs = Json::array();
  for (const CostRow& row : db.costs()) {
    costs.push_back({{"engine", row.engine},
                     {"subblock", row.subblock},
                     {"phase", row.phase},
                     {"batch", row.batch},
                     {"context", row.context},
                     {"seconds", row.seconds}});
  }
  return costs;
}

Json architectures_json(const RunDb& db) {
  Json architectures = Json::object();
  for (const ArchitectureRow& row : db.architectures()) {
    architectures[row.name] = {{"method", row.method},
                               {"blocks", row.blocks},
                               {"objective", row.objective},
                               {"gap", row.gap},
                               {"costs", parse_json(row.costs_json, db.path().string())}};
  }
  return architectures;
}

Json budgets_json(const std::vector<BudgetOutcome>& budgets) {
  Json list = Json::array();
  for (const BudgetOutcome& outcome : budgets) {
    list.push_back({{"budget", outcome.budget},
                    {"predicted", outcome.predicted},
                    {"predicted_ratio", outcome.predicted_ratio},
                    {"measured", optional_json(outcome.measured)},
                    {"measured_ratio", optional_json(outcome.measured_ratio)},
                    {"met", outcome.is_met},
                    {"met_by", outcome.is_exact   ? "exact"
                               : outcome.measured ? "measurement"
                                                  : "prediction"}});
  }
  return list;
}

Json evaluations_json(const RunDb& db) {
  Json evaluations = Json::object();
  for (const EvaluationRow& row : db.evaluations()) {
    evaluations[row.model][row.task][row.metric] = {
        {"value", row.value}, {"standard_error", row.standard_error}, {"count", row.count}};
  }
  return evaluations;
}

Json models_json(const RunDb& db) {
  Json models = Json::object();
  for (const ModelRow& row : db.models()) {
    models[row.name] = {{"role", row.role},
                        {"parameters", row.parameters},
                        {"weight_bytes", row.weight_bytes},
                        {"kv_bytes_per_token", optional_json(row.kv_bytes_per_token)},
                        {"file_bytes", optional_json(row.file_bytes)}};
  }
  return models;
}

Json throughput_json(const RunDb& db) {
  Json throughput = Json::object();
  for (const ThroughputRow& row : run_throughput(db)) {
    Json& timed = throughput[row.model] = timed_json(row);
    timed["engine"] = row.engine;
  }
  return throughput;
}

std::string speed_lines(const RunDb& db) {
  const std::vector<ThroughputRow> rows = run_throughput(db);
  const ThroughputRow* parent = find_timed(rows, "parent");
  const ThroughputRow* child = find_timed(rows, "child");
  if (parent == nullptr || child == nullptr) {
    return "";
  }
  return fmt::format(
      "  generation   {} the parent's speed in {}: {} against {} tokens/s\n"
      "  prefill      {} the parent's time: {} against {} s\n",
      format_ratio(*child->measured_generation_per_s / *parent->measured_generation_per_s),
      child->engine, format_significant(*child->measured_generation_per_s, 4),
      format_significant(*parent->measured_generation_per_s, 4),
      format_ratio(*child->measured_prefill_s / *parent->measured_prefill_s),
      format_significant(*child->measured_prefill_s),
      format_significant(*parent->measured_prefill_s));
}

std::string size_lines(const RunDb& db) {
  const std::vector<ModelRow> rows = db.models();
  const ModelRow* parent = find_model(rows, "parent");
  const ModelRow* child = find_model(rows, "child");
  if (parent == nullptr || child == nullptr) {
    return "";
  }
  std::string text =
      fmt::format("  parameters   {} of the parent's: {} of {}\n",
                  format_ratio(static_cast<double>(child->parameters) /
                               static_cast<double>(std::max<std::int64_t>(1, parent->parameters))),
                  human_count(static_cast<double>(child->parameters)),
                  human_count(static_cast<double>(parent->parameters)));
  if (parent->file_bytes.value_or(0) > 0 && child->file_bytes) {
    const auto before = static_cast<double>(*parent->file_bytes);
    const auto after = static_cast<double>(*child->file_bytes);
    text += fmt::format("  file size    {} of the parent's: {} of {}\n",
                        format_ratio(after / before), human_bytes(after), human_bytes(before));
  }
  return text;
}

// KL to the parent of every child, task by task.
std::string quality_lines(const RunDb& db) {
  std::map<std::string, std::string> tasks;
  for (const EvaluationRow& row : db.evaluations()) {
    if (row.metric == "kl" && row.model != kParentModel) {
      tasks[row.task] += fmt::format("    {:<24} {}\n", row.model,
                                     format_with_error(row.value, row.standard_error));
    }
  }
  std::string text;
  for (const auto& [task, lines] : tasks) {
    text += fmt::format("  KL to the parent, nats per token, {}:\n{}", task, lines);
  }
  return text;
}

}  // namespace

std::vector<BudgetOutcome> budget_outcomes(const std::vector<BudgetSpec>& budgets,
                                           const CostSetting& setting, const Architecture& child,
                                           const RunDb& db, const std::string& engine) {
  const auto parent_costs = model_costs(setting.parent->layers, setting);
  const auto child_costs = model_costs(child, setting);
  const std::vector<ThroughputRow> rows = run_throughput(db);
  const ThroughputRow* parent_row = find_timed(rows, "parent");
  const ThroughputRow* child_row = find_timed(rows, "child");
  std::vector<BudgetOutcome> outcomes;
  for (const BudgetSpec& spec : budgets) {
    const std::string name(spec.cost->name);
    const double parent = parent_costs.at(name);
    BudgetOutcome outcome{.budget = spec.text,
                          .cost = name,
                          .is_rate = spec.cost->is_rate(),
                          .is_exact = !spec.cost->is_measured,
                          .predicted = child_costs.at(name),
                          .predicted_ratio = child_costs.at(name) / parent,
                          .measured = std::nullopt,
                          .measured_ratio = std::nullopt};
    outcome.is_met = within(spec, outcome.predicted, parent);
    if (spec.cost->is_measured && parent_row != nullptr && child_row != nullptr &&
        child_row->engine == engine) {
      const double timed_parent = measured_cost(*parent_row, *spec.cost);
      outcome.measured = measured_cost(*child_row, *spec.cost);
      outcome.measured_ratio = *outcome.measured / timed_parent;
      outcome.is_met = within(spec, *outcome.measured, timed_parent);
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

Json run_summary(const RunDb& db, const std::string& stage,
                 const std::vector<BudgetOutcome>& budgets) {
  Json summary = {{"stages", stages_json(db)}};
  if (stage == "init-library" || stage == "distill-blocks") {
    summary["variants"] = variants_json(db);
  } else if (stage == "score") {
    summary["scores"] = scores_json(db);
  } else if (stage == "measure") {
    summary["costs"] = costs_json(db);
  }
  const auto has_come_to = [&](const char* name) {
    return stage_index(stage) >= stage_index(name);
  };
  if (has_come_to("search")) {
    summary["architectures"] = architectures_json(db);
    summary["budgets"] = budgets_json(budgets);
  }
  if (has_come_to("evaluate")) {
    summary["evaluations"] = evaluations_json(db);
  }
  if (has_come_to("export")) {
    summary["models"] = models_json(db);
  }
  if (has_come_to("throughput")) {
    summary["throughput"] = throughput_json(db);
  }
  if (has_come_to("scenarios")) {
    summary["scenarios"] = scenario_table_json(scenario_throughput(db));
  }
  return summary;
}

std::string outcome_text(const BudgetOutcome& outcome) {
  const auto value = [](double absolute, double ratio) {
    return fmt::format("{} ({} the parent's)", format_significant(absolute, 4),
                       format_ratio(ratio));
  };
  std::string text = outcome.budget + (outcome.is_met ? ": met, " : ": missed, ");
  const std::string predicted = value(outcome.predicted, outcome.predicted_ratio);
  if (outcome.is_exact) {
    return text + predicted;
  }
  if (!outcome.measured) {
    return text + "predicted " + predicted + ", not measured";
  }
  return text + "measured " + value(*outcome.measured, *outcome.measured_ratio) + ", predicted " +
         predicted;
}

std::string run_text(const RunDb& db, const std::vector<BudgetOutcome>& budgets) {
  std::string text = "Result\n" + speed_lines(db) + size_lines(db) + "  budgets:\n";
  for (const BudgetOutcome& outcome : budgets) {
    text += "    " + outcome_text(outcome) + "\n";
  }
  return text + quality_lines(db);
}

}  // namespace puzzle
