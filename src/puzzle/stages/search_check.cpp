#include "puzzle/stages/search_check.h"

#include <algorithm>
#include <functional>
#include <set>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/stages/search_budgets.h"
#include "puzzle/stages/search_problem.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

void check_names_unique(const std::vector<std::string>& names, const char* option) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      fail(ErrorKind::kUsage, "search.{}: {} stands twice", option, name);
    }
  }
}

void check_rate(const BudgetSpec& budget, const Scenario& scenario) {
  if (!budget.cost->is_rate()) {
    return;
  }
  for (const std::int64_t batch : scenario.batch) {
    if (counted_tokens(*budget.cost, {batch, scenario.prompt_tokens, scenario.generated_tokens}) <=
        0.0) {
      fail(ErrorKind::kUsage,
           "budget '{}': scenario.generated_tokens is {}, and the first comes out of prefill; "
           "there is no such rate",
           budget.text, scenario.generated_tokens);
    }
  }
}

void check_sweep(const SearchOptions& options, const Scenario& scenario) {
  if (options.sweep_values.empty()) {
    fail(ErrorKind::kUsage, "search.sweep is {} and search.sweep_values is empty; name values",
         options.sweep);
  }
  check_names_unique(options.sweep_values, "sweep_values");
  for (const std::string& value : options.sweep_values) {
    check_rate(parse_budget(sweep_budget_text(options.sweep, value)), scenario);
  }
}

void check_method(const SearchOptions& options) {
  std::vector<std::string> single = {"greedy", "random"};
  if (options.depth == "iterative") {
    single.emplace_back("depth-only");
  }
  const bool is_validated = options.validate > options.solutions;
  if (std::max(options.solutions, options.validate) > 1 &&
      std::find(single.begin(), single.end(), options.method) != single.end()) {
    fail(ErrorKind::kUsage, "search.{} is {}, but search.method {} gives one only{}",
         is_validated ? "validate" : "solutions",
         is_validated ? options.validate : options.solutions, options.method,
         options.method == "depth-only" ? " unless search.depth is one-shot" : "");
  }
}

}  // namespace

void check_search_options(const SearchOptions& options, const Scenario& scenario,
                          const std::filesystem::path& parent) {
  std::vector<std::string> problems;
  const auto attempt = [&](const std::function<void()>& check) {
    try {
      check();
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  };
  for (const std::string& text : options.budgets) {
    attempt([&] { check_rate(parse_budget(text), scenario); });
  }
  if (!options.sweep.empty()) {
    attempt([&] { check_sweep(options, scenario); });
  }
  attempt([&] { check_names_unique(options.baselines, "baselines"); });
  attempt([&] { check_method(options); });
  attempt([&] { (void)parse_export_target(options.target); });
  attempt([&] { (void)deployed_types(options.types, scenario, parent); });
  if (!problems.empty()) {
    fail(ErrorKind::kUsage, "{}", join(problems, "; "));
  }
}

void check_exact_budgets(const SearchOptions& options, const Scenario& scenario,
                         const std::filesystem::path& parent, const ModelSpec& spec,
                         const SearchSpace& space) {
  std::vector<BudgetSpec> exact = parse_budgets(options.budgets);
  std::erase_if(exact, [](const BudgetSpec& budget) { return budget.cost->is_measured; });
  if (exact.empty() || scenario.batch.empty()) {
    return;
  }
  std::vector<std::string> reasons;
  for (const std::int64_t batch : scenario.batch) {
    const CostSetting setting = cost_setting(spec, parent, options, scenario, batch);
    const std::vector<BoundBudget> budgets = resolve_budgets(exact, setting);
    const SolveResult result = HighsSolver().solve(make_problem(space, nullptr, budgets, setting),
                                                   {.time_limit_s = options.time_limit_s});
    if (result.status != SolveStatus::kInfeasible) {
      return;  // met, or not decided in time: the search itself will tell
    }
    reasons.push_back(
        at_batch(batch, scenario, describe_unreachable(*result.infeasibility, budgets, setting)));
  }
  fail(ErrorKind::kInfeasible, "search: no child meets the budgets: {}", join(reasons, "; "));
}

}  // namespace puzzle
