#include "puzzle/stages/search_problem.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/ranges.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr const char* kParameters = "parameters";
constexpr const char* kWeightBytes = "weight_bytes";
constexpr const char* kKvBytes = "kv_bytes_per_token";
constexpr const char* kMemoryBytes = "memory_bytes";
constexpr const char* kPrefill = "prefill_s";
constexpr const char* kGeneration = "generation_s";
constexpr const char* kTotal = "total_s";
constexpr const char* kGenerationRate = "generation_tokens_per_s";
constexpr const char* kTotalRate = "total_tokens_per_s";

std::vector<std::string> summed_costs(bool with_times) {
  std::vector<std::string> names = {kParameters, kWeightBytes, kKvBytes, kMemoryBytes};
  if (with_times) {
    names.insert(names.end(), {kPrefill, kGeneration, kTotal});
  }
  return names;
}

double memory_bytes(const PartCost& cost, const Workload& workload) {
  const auto tokens =
      static_cast<double>(workload.batch * (workload.prompt_tokens + workload.generated_tokens));
  return static_cast<double>(cost.weight_bytes) +
         tokens * static_cast<double>(cost.kv_bytes_per_token);
}

// In the order of summed_costs().
std::vector<double> cost_values(const PartCost& cost, const PhaseSeconds& seconds,
                                const CostSetting& setting) {
  std::vector<double> values = {
      static_cast<double>(cost.parameters), static_cast<double>(cost.weight_bytes),
      static_cast<double>(cost.kv_bytes_per_token), memory_bytes(cost, setting.workload)};
  if (setting.times != nullptr) {
    values.insert(values.end(), {seconds.prefill_s, seconds.generation_s, seconds.total_s()});
  }
  return values;
}

PhaseSeconds subblock_workload(const CostSetting& setting, const std::string& subblock) {
  return setting.times == nullptr ? PhaseSeconds{}
                                  : setting.times->workload_seconds(subblock, setting.workload);
}

double suffix_factor(const std::string& suffix, const std::string& text, bool* relative) {
  static const std::map<std::string, double> kFactors = {
      {"", 1.0},  {"K", 1e3},      {"M", 1e6},         {"G", 1e9},
      {"B", 1e9}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  if (suffix == "x") {
    *relative = true;
    return 1.0;
  }
  const auto found = kFactors.find(suffix);
  if (found == kFactors.end()) {
    fail(ErrorKind::kUsage,
         "budget '{}': unknown suffix '{}'; expected x, K, M, G, B, KiB, MiB or GiB", text, suffix);
  }
  return found->second;
}

double budget_value(const BudgetSpec& budget, const std::map<std::string, double>& parent_costs) {
  const auto found = parent_costs.find(budget.cost);
  if (found == parent_costs.end()) {
    std::vector<std::string> names;
    for (const auto& [name, value] : parent_costs) {
      names.push_back(name);
    }
    fail(ErrorKind::kUsage,
         "budget '{}': there is no cost {}; known here: {}. Times need `puzzle measure` first",
         budget.text, budget.cost, fmt::join(names, ", "));
  }
  return budget.relative ? budget.value * found->second : budget.value;
}

// Rates become bounds on times.
Budget as_bound(const BudgetSpec& budget, double value, const Workload& workload) {
  if (budget.cost == kGenerationRate || budget.cost == kTotalRate) {
    if (budget.at_most) {
      fail(ErrorKind::kUsage,
           "budget '{}': a throughput can only be bounded from below; write >=", budget.text);
    }
    if (value <= 0.0) {
      fail(ErrorKind::kUsage,
           "budget '{}': a throughput of {} bounds nothing; is one token generated only?",
           budget.text, value);
    }
    const bool total = budget.cost == kTotalRate;
    const std::int64_t tokens =
        workload.batch * (total ? workload.prompt_tokens + workload.generated_tokens
                                : workload.generated_tokens - 1);
    return {total ? kTotal : kGeneration, static_cast<double>(tokens) / value, std::nullopt};
  }
  return budget.at_most ? Budget{budget.cost, value, std::nullopt}
                        : Budget{budget.cost, std::nullopt, value};
}

void add_budgets(const std::vector<BudgetSpec>& budgets, const CostSetting& setting,
                 Problem& problem) {
  const auto parent_costs = model_costs(setting.parent->layers, setting);
  for (const BudgetSpec& spec : budgets) {
    const Budget bound = as_bound(spec, budget_value(spec, parent_costs), setting.workload);
    const auto same = std::find_if(problem.budgets.begin(), problem.budgets.end(),
                                   [&](const Budget& b) { return b.cost == bound.cost; });
    if (same == problem.budgets.end()) {
      problem.budgets.push_back(bound);
      continue;
    }
    if (bound.at_most) {
      same->at_most = std::min(same->at_most.value_or(*bound.at_most), *bound.at_most);
    }
    if (bound.at_least) {
      same->at_least = std::max(same->at_least.value_or(*bound.at_least), *bound.at_least);
    }
  }
}

void add_gqa_cover(const CostSetting& setting, Problem& problem) {
  if (!needs_gqa_layer(setting.target)) {
    return;
  }
  CoverConstraint cover{"one layer with grouped-query attention", {}, 1};
  for (const auto& choices : problem.layers) {
    std::vector<std::size_t> with_gqa;
    for (std::size_t c = 0; c < choices.size(); ++c) {
      if (parse_block(choices[c].name).attention.kind == AttentionKind::kGqa) {
        with_gqa.push_back(c);
      }
    }
    cover.choices_per_layer.push_back(std::move(with_gqa));
  }
  problem.covers.push_back(std::move(cover));
}

}  // namespace

std::map<std::string, double> model_costs(const Architecture& layers, const CostSetting& setting) {
  const ModelSpec spec = with_layers(*setting.parent, layers);
  const PartCost cost = model_cost(spec, setting.target, setting.types);
  std::map<std::string, double> costs = {{kParameters, static_cast<double>(cost.parameters)},
                                         {kWeightBytes, static_cast<double>(cost.weight_bytes)},
                                         {kKvBytes, static_cast<double>(cost.kv_bytes_per_token)},
                                         {kMemoryBytes, memory_bytes(cost, setting.workload)}};
  if (setting.times != nullptr) {
    const Prediction prediction = setting.times->predict(layers, setting.workload);
    costs[kPrefill] = prediction.seconds.prefill_s;
    costs[kGeneration] = prediction.seconds.generation_s;
    costs[kTotal] = prediction.seconds.total_s();
    costs[kGenerationRate] = prediction.generation_tokens_per_s;
    costs[kTotalRate] = prediction.total_tokens_per_s;
  }
  return costs;
}

BudgetSpec parse_budget(const std::string& text) {
  BudgetSpec budget;
  budget.text = text;
  const std::size_t less = text.find("<=");
  const std::size_t more = text.find(">=");
  const std::size_t at = std::min(less, more);
  if (at == std::string::npos) {
    fail(ErrorKind::kUsage,
         "budget '{}': expected a cost, <= or >=, and a number, e.g. parameters <= 0.7x", text);
  }
  budget.at_most = less < more;
  budget.cost = std::string(trim(std::string_view(text).substr(0, at)));
  const std::string number(trim(std::string_view(text).substr(at + 2)));
  if (budget.cost.empty()) {
    fail(ErrorKind::kUsage, "budget '{}': names no cost, e.g. parameters <= 0.7x", text);
  }
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), budget.value);
  if (error != std::errc() || !std::isfinite(budget.value) || budget.value < 0.0) {
    fail(ErrorKind::kUsage, "budget '{}': '{}' is no number, expected one that is not negative",
         text, number);
  }
  const std::string suffix(trim(std::string_view(end, number.data() + number.size() - end)));
  budget.value *= suffix_factor(suffix, text, &budget.relative);
  if (!std::isfinite(budget.value)) {
    fail(ErrorKind::kUsage, "budget '{}': the number is too large", text);
  }
  return budget;
}

Problem make_problem(const SearchSpace& space, const ScoreTable& scores,
                     const std::vector<BudgetSpec>& budgets, const CostSetting& setting) {
  const ModelSpec& parent = *setting.parent;
  Problem problem;
  problem.cost_names = summed_costs(setting.times != nullptr);
  problem.fixed_costs =
      cost_values(fixed_cost(parent, setting.types, setting.target),
                  subblock_workload(setting, std::string(kFixedSubblock)), setting);
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    std::vector<Choice> choices;
    for (const AttentionSpec& attention : space.layers[i].attention) {
      for (const FfnSpec& ffn : space.layers[i].ffn) {
        const BlockSpec block{attention, ffn};
        const bool left_out = attention.kind == AttentionKind::kNone && ffn.kind == FfnKind::kNone;
        if (refusal(setting.target, parent, block) ||
            (left_out && layer == 0 && setting.target == ExportTarget::kDeci)) {
          continue;
        }
        PhaseSeconds seconds = subblock_workload(setting, subblock_name(attention));
        const PhaseSeconds ffn_seconds = subblock_workload(setting, subblock_name(ffn));
        seconds.prefill_s += ffn_seconds.prefill_s;
        seconds.generation_s += ffn_seconds.generation_s;
        const PartCost cost = block_cost(parent, layer, block, setting.target, setting.types);
        choices.push_back(
            {block.name(), scores.block(layer, block).value, cost_values(cost, seconds, setting)});
      }
    }
    problem.layers.push_back(std::move(choices));
  }
  add_budgets(budgets, setting, problem);
  add_gqa_cover(setting, problem);
  return problem;
}

Architecture chosen_blocks(const Problem& problem, const Assignment& assignment) {
  Architecture layers;
  for (const std::string& name : choice_names(problem, assignment)) {
    layers.push_back(parse_block(name));
  }
  return layers;
}

std::string describe_budget(const BudgetSpec& budget, const CostSetting& setting) {
  if (!budget.relative) {
    return budget.text;
  }
  const double value = budget_value(budget, model_costs(setting.parent->layers, setting));
  return fmt::format("{} {} {:.6g} ({:g}x the parent's)", budget.cost,
                     budget.at_most ? "<=" : ">=", value, budget.value);
}

}  // namespace puzzle
