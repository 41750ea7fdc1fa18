// Budgets as people write them, as bounds of the search's problem, and back.
#pragma once

#include <string>
#include <vector>

#include "puzzle/mip/problem.h"
#include "puzzle/mip/solver.h"
#include "puzzle/stages/search_costs.h"

namespace puzzle {

struct BudgetSpec {
  std::string text;  // as given
  const SearchCost* cost = nullptr;
  double value = 0.0;
  bool relative = false;  // to the parent's, at the same batch size

  // The cost that is added up over blocks: a rate's time, else the cost itself.
  [[nodiscard]] std::string summed_cost() const;
};

// "parameters <= 0.7x", "generation_tokens_per_s >= 1.3x", "memory_bytes <= 6GiB": costs from
// above, rates from below. Suffixes: x (relative to the parent), K M G B (decimal; not for
// seconds), KiB MiB GiB (bytes only). Throws Error(kUsage).
[[nodiscard]] BudgetSpec parse_budget(const std::string& text);
[[nodiscard]] std::vector<BudgetSpec> parse_budgets(const std::vector<std::string>& texts);

// A bound, and the budget it comes from.
struct BoundBudget {
  BudgetSpec spec;
  double at_most = 0.0;  // on spec.summed_cost()
};

// The tightest budget of every summed cost: relative ones resolved against the parent, a rate R as
// the time b (G - 1) / R or b (P + G) / R. Throws Error(kUsage) for a budget on a time that was not
// measured, and for a rate of nothing.
[[nodiscard]] BoundBudget resolve_budget(const BudgetSpec& spec, const CostSetting& setting);
[[nodiscard]] std::vector<BoundBudget> resolve_budgets(const std::vector<BudgetSpec>& specs,
                                                       const CostSetting& setting);

// The solver's answer in the words of the budgets, joined by "; ": "generation_tokens_per_s >= 1.3x
// (182): the largest attainable with the other budgets held is 151 (1.07x), on its own 210 (1.5x)".
// Attainable values are rounded so that a budget of that value can be met.
[[nodiscard]] std::string describe_unreachable(const Infeasibility& infeasibility,
                                               const std::vector<BoundBudget>& budgets,
                                               const CostSetting& setting);

}  // namespace puzzle
