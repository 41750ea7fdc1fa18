// From scores and costs to the search's mixed-integer problem (DESIGN 7), and from budgets as
// people write them to bounds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/mip/problem.h"
#include "puzzle/stages/score_table.h"

namespace puzzle {

// Names of the costs of a block and of a whole child, all of the child as the export target stores
// it:
//   parameters · weight_bytes · kv_bytes_per_token (one sequence) ·
//   memory_bytes = weight_bytes + batch · (P + G) · kv_bytes_per_token ·
//   prefill_s · generation_s · total_s (only with measured times)
// Budgets may also bound generation_tokens_per_s and total_tokens_per_s from below; those become
// bounds on generation_s and total_s: b (G - 1) / R and b (P + G) / R.
struct CostSetting {
  const ModelSpec* parent = nullptr;
  ExportTarget target = ExportTarget::kDeci;
  WeightTypes types;
  const CostModel* times = nullptr;  // null: no times
  Workload workload;
};

// Every cost of a whole model by name, rates included: recomputed from the model, not from sums.
[[nodiscard]] std::map<std::string, double> model_costs(const Architecture& layers,
                                                        const CostSetting& setting);

struct BudgetSpec {
  std::string text;  // as given
  std::string cost;
  bool at_most = true;
  double value = 0.0;
  bool relative = false;  // to the parent
};

// "parameters <= 0.7x", "generation_tokens_per_s >= 1.3x", "memory_bytes <= 6GiB", "total_s <=
// 0.8x". Suffixes: x (relative to the parent), K M G B (decimal), KiB MiB GiB. Throws
// Error(kUsage).
[[nodiscard]] BudgetSpec parse_budget(const std::string& text);

// One choice per block that the target can hold; in deci the first layer is never left out whole,
// because which layer then pays for being first would depend on the other choices. Throws
// Error(kUsage) for a budget on a time that was not measured.
[[nodiscard]] Problem make_problem(const SearchSpace& space, const ScoreTable& scores,
                                   const std::vector<BudgetSpec>& budgets,
                                   const CostSetting& setting);

// The blocks that an assignment chose, by the choices' names.
[[nodiscard]] Architecture chosen_blocks(const Problem& problem, const Assignment& assignment);

// "parameters <= 9.42e+07 (0.7x the parent's)": the budget resolved against the parent.
[[nodiscard]] std::string describe_budget(const BudgetSpec& budget, const CostSetting& setting);

}  // namespace puzzle
