// Problems and their answers as JSON files, for `puzzle solve` and for other people's costs.
// docs/formats.md describes both, with examples that a test solves: puzzle-problem,
// puzzle-solution.
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
