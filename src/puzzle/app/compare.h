// Children of several recipes side by side, on text that nothing else saw: what `puzzle compare`
// does (ablations and baselines).
//
// A grid is a recipe and cells, each of which changes some of its settings. All cells run in one
// folder up to the evaluation, so whatever two of them have in common (tokens, library, scores,
// times, a child) is made once. Of each cell's child the KL to the parent is kept for every
// independent unit of the test part: cells are compared unit by unit, which leaves less noise than
// the difference of two means.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/app/compare_cell.h"
#include "puzzle/app/recipe.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/results/comparison.h"

namespace puzzle {

struct CompareOptions {
  std::string recipe;                // the file that all cells start from; relative to the grid's
  std::string run = "runs/compare";  // folder of all cells
  std::string reference;             // of cells that name no other; empty: the first
  std::vector<std::string> set;      // settings of all cells, "name=value"
  // "name" or "name: setting; setting", in the order of the table; "name vs other: …" is compared
  // with that cell.
  std::vector<std::string> cells;

  void visit(OptionList& list);
};

struct CompareGrid {
  std::filesystem::path file;
  CompareOptions options;
  std::vector<CompareCell> cells;
};

// Throws Error(kUsage) naming the file: no recipe or cells, a name twice or not of letters, digits,
// '-', '_', '.', a reference that is no cell.
[[nodiscard]] CompareGrid load_compare_grid(const std::filesystem::path& file);

// The recipe of a cell: all settings but compress.*. Throws as OptionList for settings that do not
// exist.
[[nodiscard]] Recipe cell_recipe(const CompareGrid& grid, const CompareCell& cell);

// Runs the cells that are not done yet, in order. A cell that no child satisfies (exit code 5)
// leaves an empty `kl_sums` and a warning. What there is after each cell is in run.db and on its
// report page. Throws as Pipeline, with the cell's name. Cells are rank 0's; empty on others.
[[nodiscard]] Comparison run_compare(const CompareGrid& grid, Communicator& communicator,
                                     const std::string& command);

// A Markdown page: the table, and how it was made.
[[nodiscard]] std::string compare_page(const CompareGrid& grid, const Comparison& comparison,
                                       const std::string& command);
[[nodiscard]] nlohmann::json compare_json(const Comparison& comparison);

}  // namespace puzzle
