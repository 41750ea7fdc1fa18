// Stage `search`: one block per layer under the budgets (DESIGN 7; paper section 5).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/measured_cost.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct SearchOptions {
  std::vector<std::string> budgets = {"parameters <= 0.7x"};  // all must hold; see parse_budget()
  std::string method = "mip";
  std::vector<std::string> baselines;  // further methods, for comparison, under the same budgets
  std::string metric = "kl";           // of the scores that are added up
  std::string target = "deci";         // export target whose costs and rules count
  std::string types = "like-parent";   // weight types of that export
  std::int64_t solutions = 1;          // diverse ones, best first
  double max_shared_fraction = 0.8;    // of layers that two of them may have in common
  double time_limit_s = 60.0;          // per solution
  std::string sweep;                   // a cost to sweep, e.g. "generation_s"; empty = none
  std::vector<std::string> sweep_values = {"0.9x", "0.8x", "0.7x", "0.6x", "0.5x"};

  void visit(OptionList& list);
};

struct FoundArchitecture {
  std::string name;  // "child", "child-2" (diverse solutions), a baseline's method, "sweep-0.8x"
  std::string method;
  Architecture layers;
  std::int64_t batch = 1;               // the batch size it was found for
  double objective = 0.0;               // sum of scores
  double gap = 0.0;                     // proven relative gap
  std::map<std::string, double> costs;  // recomputed for the whole child, rates included
};

struct SearchResult {
  std::string key;
  std::vector<FoundArchitecture> found;  // "child" first

  [[nodiscard]] const FoundArchitecture* find(const std::string& name) const;
};

// For every batch size of the scenario the problem is solved, and the best objective wins. Scores
// are those that run.db holds as current; `costs` may be empty if no budget bounds a time. Records
// ArchitectureRows. Throws Error(kInfeasible) with, for each budget, the tightest value attainable;
// a baseline that finds nothing is logged and left out.
SearchResult search(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                    const Scenario& scenario, const std::vector<MeasuredCost>& costs,
                    const SearchOptions& options);

}  // namespace puzzle
