// Problems and their answers as JSON files, for `puzzle solve` and for other people's costs.
//
// Problem file (* = may be left out; unknown keys are errors):
//   {"format": "puzzle-problem", "version": 1,
//    "layers": [[{"name": "kv3+w768", "score": 0.013, "costs": {"memory_mib": 93.5, …}}, …], …],
//    "budgets": [{"cost": "memory_mib", "at_most": 80000, "at_least"*: 0}, …],      *
//    "fixed_costs": {"memory_mib": 2004, …},                                          *
//    "covers": [{"name": "one GQA layer", "at_least": 1, "layers": [["kv3+w768"], [], …]}],  *
//    "solutions": 3, "max_shared_fraction": 0.8}                                      *
// Scores are minimised. Fixed costs count against the budgets. Every choice states the same costs;
// a budget has one bound or both. "layers" of a cover lists, for every layer, the names that count.
//
// Solution file:
//   {"format": "puzzle-solution", "version": 1, "status": "optimal", "seconds": 1.2,
//    "solutions": [{"choices": ["kv3+w768", …], "objective": …, "bound": …, "gap": …,
//                   "proven": true, "seconds": …, "costs": {"memory_mib": …}}, …],
//    "no_more_solutions": false,
//    "infeasible": {…}}          only with that status, see Infeasibility in solver.h
// Cost sums include the fixed costs; "gap" is (objective − bound) ÷ |objective|.
#pragma once

#include <filesystem>
#include <string>

#include "puzzle/base/json.h"
#include "puzzle/mip/problem.h"
#include "puzzle/mip/solver.h"

namespace puzzle {

// Throw Error(kFormat) that names the file, the layer, the choice and the key. Costs come out in
// alphabetical order.
[[nodiscard]] Problem parse_problem(const Json& json, const std::string& place);
[[nodiscard]] Problem load_problem(const std::filesystem::path& path);

[[nodiscard]] Json result_json(const Problem& problem, const SolveResult& result);

}  // namespace puzzle
