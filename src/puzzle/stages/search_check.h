// What is wrong with a search before anything expensive has run.
#pragma once

#include <filesystem>

#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/stages/search.h"

namespace puzzle {

// Names, directions, suffixes, types and combinations of options, all problems at once. `parent` is
// the file or folder that "like-parent" types are those of. Throws Error(kUsage).
void check_search_options(const SearchOptions& options, const Scenario& scenario,
                          const std::filesystem::path& parent);

// Whether the budgets that need no measured time (parameters, bytes) can be met together, at one
// batch size at least. Throws Error(kInfeasible) with the tightest values attainable. Call it after
// check_search_options().
void check_exact_budgets(const SearchOptions& options, const Scenario& scenario,
                         const std::filesystem::path& parent, const ModelSpec& spec,
                         const SearchSpace& space);

}  // namespace puzzle
