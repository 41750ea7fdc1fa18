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
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/app/recipe.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/results/run_db.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {

struct CompareOptions {
  std::string recipe;                // the file that all cells start from; relative to the grid's
  std::string run = "runs/compare";  // folder of all cells
  std::string reference;             // cell that the others are compared with; empty: the first
  std::vector<std::string> set;      // settings of all cells, "name=value"
  // "name" or "name: setting; setting", in the order of the table.
  std::vector<std::string> cells;
  std::int64_t test_tokens = 0;  // of the test part; 0 = all of it

  void visit(OptionList& list);
};

struct CompareCell {
  std::string name;
  std::vector<std::string> settings;
};

struct CompareGrid {
  std::filesystem::path file;
  CompareOptions options;
  std::vector<CompareCell> cells;
};

// Throws Error(kUsage) naming the file: no recipe or cells, a name twice or not of letters, digits,
// '-', '_', '.', a reference that is no cell.
[[nodiscard]] CompareGrid load_compare_grid(const std::filesystem::path& file);

// The recipe of a cell. Throws as OptionList for settings that do not exist.
[[nodiscard]] Recipe cell_recipe(const CompareGrid& grid, const CompareCell& cell);

struct CellResult {
  std::string name;
  std::string settings{};  // "; " between them
  std::string budget{};    // what it had to meet, for people
  // Of units that are the same for all cells: Σ KL(parent ‖ child) in nats, and tokens.
  std::vector<double> kl_sums{};
  std::vector<double> unit_tokens{};
  double parameters = 0.0;                  // as a fraction of the parent's
  std::map<std::string, double> metrics{};  // "held-out text/perplexity", "blimp/accuracy", …
  double predicted = 0.0;                   // sum of scores
  double seconds = 0.0;                     // of what no cell before had made

  [[nodiscard]] RatioOfSums::Result kl() const;  // nats per token
  // KL over that of another cell, paired.
  [[nodiscard]] RatioOfSums::Result kl_ratio_to(const CellResult& other) const;
};

// Runs the cells that are not done yet, in order. A cell that no child satisfies (exit code 5)
// leaves an empty `kl_sums` and a warning. Throws as Pipeline, with the cell's name.
[[nodiscard]] std::vector<CellResult> run_compare(const CompareGrid& grid,
                                                  Communicator& communicator,
                                                  const std::string& command);

// A Markdown page: the table, and how it was made.
[[nodiscard]] std::string compare_page(const CompareGrid& grid,
                                       const std::vector<CellResult>& results,
                                       const std::string& command);
[[nodiscard]] nlohmann::json compare_json(const CompareGrid& grid,
                                          const std::vector<CellResult>& results);

}  // namespace puzzle
