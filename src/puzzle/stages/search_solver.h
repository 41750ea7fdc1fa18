// Every method of the search on the problem of one run, at all batch sizes. On rank 0.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/mip/solver.h"
#include "puzzle/stages/score_table.h"
#include "puzzle/stages/search.h"
#include "puzzle/stages/search_budgets.h"

namespace puzzle {

// What a method gave at one batch size, or over all of them.
struct MethodAnswer {
  std::vector<FoundArchitecture> found;
  std::vector<std::string> why;  // nothing was found, one reason per batch size
  bool timed_out = false;        // at one batch size at least, so nothing is ruled out
  bool is_proven = false;        // no child at all meets the budgets, at any batch size
};

[[nodiscard]] Assignment choices_of(const Problem& problem, const Architecture& layers);

class SearchSolver {
 public:
  // `probe` measures for methods that need it. All arguments must outlive the solver.
  SearchSolver(const RunContext& context, const LoadedModel& parent, const SearchSpace& space,
               const Scenario& scenario, const std::vector<MeasuredCost>& costs,
               const SearchOptions& options, SearchProbe& probe);

  // The batch size with the best first answer wins.
  [[nodiscard]] MethodAnswer solve(const std::string& method, std::int64_t solutions) const;

  // One architecture per value that can be met, in the order given.
  [[nodiscard]] std::vector<FoundArchitecture> sweep() const;

  // The whole problem at a batch size of the scenario.
  [[nodiscard]] Problem problem_at(std::int64_t batch) const;
  // The parent's own block in every layer; where the target cannot hold it, the best scored one.
  [[nodiscard]] Assignment parent_choices(const Problem& problem) const;
  // One solution; empty where there is none, or none was found in time.
  [[nodiscard]] std::optional<Assignment> best_of(const Problem& problem) const;
  // `problem`: problem_at(batch), whose scores are added up.
  [[nodiscard]] FoundArchitecture found_as(const std::string& method, const Problem& problem,
                                           const Assignment& choices, std::int64_t batch) const;

 private:
  [[nodiscard]] MethodAnswer solve_at(const std::string& method, std::int64_t solutions,
                                      const CostSetting& setting) const;
  [[nodiscard]] MethodAnswer solve_depth(const Problem& problem, const CostSetting& setting) const;
  [[nodiscard]] MethodAnswer answer_of(const std::string& method,
                                       const std::vector<Solution>& solutions,
                                       const Problem& problem, const CostSetting& setting) const;
  [[nodiscard]] MethodAnswer answer_of(const std::string& method, const SolveResult& result,
                                       const Problem& problem,
                                       const std::vector<BoundBudget>& bounds,
                                       const CostSetting& setting) const;
  [[nodiscard]] FoundArchitecture as_found(const std::string& method, const Solution& solution,
                                           const Problem& problem,
                                           const CostSetting& setting) const;
  void sweep_at(const std::vector<BudgetSpec>& held, const CostSetting& setting,
                std::vector<MethodAnswer>& points) const;
  void describe_point(const std::vector<BudgetSpec>& held, const std::string& value,
                      FoundArchitecture& point) const;
  [[nodiscard]] SolveOptions solve_options() const {
    return {.time_limit_s = options_.time_limit_s, .before_each = [this] { probe_.keep_step(); }};
  }
  [[nodiscard]] Problem restricted(const Problem& problem, bool depth_only) const;
  [[nodiscard]] const CostSetting& setting_at(std::int64_t batch) const;

  const SearchOptions& options_;
  const Scenario& scenario_;
  const ModelSpec& parent_;
  const SearchSpace& space_;
  SearchProbe& probe_;
  ScoreTable scores_;
  std::vector<BudgetSpec> budgets_;
  std::uint64_t seed_;
  std::unique_ptr<CostModel> times_;
  std::vector<CostSetting> settings_;  // one per batch size
};

}  // namespace puzzle
