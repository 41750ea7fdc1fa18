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
  std::string title;                 // heading of its part of the page; empty: the file's name
  std::string about;                 // what is compared and what came out of it; may be empty
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
  // Of the command line: the last of options.set, and whether options.run is from there.
  std::size_t num_command_settings = 0;
  bool is_command_run = false;

  // What its part of a page is called: the file's name without folder and ending, and the settings
  // of the command line, under which it is another part.
  [[nodiscard]] std::string page_name() const;
};

// Throws Error(kUsage) naming the file: a recipe instead of a grid, no recipe or cells, a name
// twice or not of letters, digits, '-', '_', '.', a reference that is no cell.
[[nodiscard]] CompareGrid load_compare_grid(const std::filesystem::path& file);

// The recipe of a cell: all settings but compress.*. Throws as OptionList for settings that do not
// exist, naming where they stand: the grid's cell, its set, or --set.
[[nodiscard]] Recipe cell_recipe(const CompareGrid& grid, const CompareCell& cell);

// What can be known of all cells before the first one runs. Throws as cell_recipe, load_model_spec
// and validate, naming grid and cell; budgets that no child meets are left to the cell.
void check_cell_recipes(const CompareGrid& grid);

// Runs the cells that are not done yet, in order. A cell that no child satisfies (exit code 5)
// leaves an empty `kl_sums` and a warning. What there is after each cell is in run.db and on its
// report page, with those that an earlier run left. Throws as Pipeline, with the cell's name; for a
// mistake in the last cell only when its turn comes, so call check_cell_recipes before. Cells are
// rank 0's; empty on others.
[[nodiscard]] Comparison run_compare(const CompareGrid& grid, Communicator& communicator,
                                     const std::string& command);

// The cells that run.db of the grid's folder holds and whose recipes have not changed since; runs
// nothing. No cells where there is no such file. Throws as cell_recipe of every cell, recorded or
// not; Error(kFormat) for a damaged file.
[[nodiscard]] Comparison recorded_compare(const CompareGrid& grid);

struct ComparedGrid {
  CompareGrid grid;
  Comparison comparison;
};

// A Markdown page: the table of every grid, and how it was made. What `earlier`, the page as it
// was, says of other grids stays, so that a page can be filled grid by grid, from several folders.
[[nodiscard]] std::string compare_page(const std::vector<ComparedGrid>& grids,
                                       const std::string& earlier = "");
// Whether `text` is such a page, or nothing.
[[nodiscard]] bool is_compare_page(const std::string& text);
[[nodiscard]] nlohmann::json compare_json(const std::vector<ComparedGrid>& grids);

}  // namespace puzzle
