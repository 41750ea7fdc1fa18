// What a run found, from run.db: JSON for scripts, a few lines for people.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/results/run_db.h"
#include "puzzle/stages/search_budgets.h"

namespace puzzle {

// One budget of the search, and what became of it.
struct BudgetOutcome {
  std::string budget;  // as in the recipe
  std::string cost;
  bool is_rate = false;   // bounded from below
  bool is_exact = false;  // integers: prediction and truth are the same
  double predicted = 0.0;
  double predicted_ratio = 0.0;          // to the parent's
  std::optional<double> measured;        // of the exported file
  std::optional<double> measured_ratio;  // to the parent's file
  bool is_met = false;                   // by the measurement where there is one
};

// `engine` is the one that the setting's times are of: what was measured in another one says
// nothing about the budget.
[[nodiscard]] std::vector<BudgetOutcome> budget_outcomes(const std::vector<BudgetSpec>& budgets,
                                                         const CostSetting& setting,
                                                         const Architecture& child, const RunDb& db,
                                                         const std::string& engine);

// {"stages": […]} and what the verb `stage` made: "variants" (init-library, distill-blocks),
// "scores", "costs" (measure), "architectures" and "budgets" (search and later), "evaluations",
// "models" (export and later), "throughput". A run has all from "architectures" on.
[[nodiscard]] nlohmann::json run_summary(const RunDb& db, const std::string& stage,
                                         const std::vector<BudgetOutcome>& budgets);

// Speed-up, file size, budgets and held-out KL, one line each, for the end of a run.
[[nodiscard]] std::string run_text(const RunDb& db, const std::vector<BudgetOutcome>& budgets);

// "generation_tokens_per_s >= 1.35x: missed, measured 1.31x (predicted 1.37x)"
[[nodiscard]] std::string outcome_text(const BudgetOutcome& outcome);

}  // namespace puzzle
