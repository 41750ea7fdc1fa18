// Whole children measured: which of the search's answers is really the best.
#pragma once

#include <vector>

#include "puzzle/stages/search.h"
#include "puzzle/stages/search_probe.h"
#include "puzzle/stages/search_solver.h"

namespace puzzle {

// On rank 0, inside probe.lead(). `found`: a method's solutions, best sum of scores first; not
// empty. Measures the first of them (`options.validate`, at least one), adds the child that rounds
// give and the one that local search makes of the best so far, as options ask for them, and puts
// all that were measured first, the lowest KL first.
void refine(const SearchOptions& options, const SearchSolver& solver, SearchProbe& probe,
            std::vector<FoundArchitecture>& found);

}  // namespace puzzle
