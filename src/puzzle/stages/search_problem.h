// From scores and costs to the search's mixed-integer problem.
#pragma once

#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/mip/problem.h"
#include "puzzle/stages/score_table.h"
#include "puzzle/stages/search_budgets.h"

namespace puzzle {

// One choice per block that the target can hold, named as the block; in deci the first layer is
// never left out whole, because which layer then pays for being first would depend on the other
// choices. Without `scores` all are 0: what is left is whether the budgets can be met.
[[nodiscard]] Problem make_problem(const SearchSpace& space, const ScoreTable* scores,
                                   const std::vector<BoundBudget>& budgets,
                                   const CostSetting& setting);

// The blocks that an assignment chose, by the choices' names.
[[nodiscard]] Architecture chosen_blocks(const Problem& problem, const Assignment& assignment);

}  // namespace puzzle
