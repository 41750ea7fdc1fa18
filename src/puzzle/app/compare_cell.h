// One cell of a grid of recipes (compare.h): its child, made and evaluated.
#pragma once

#include <string>
#include <vector>

#include "puzzle/app/recipe.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/results/comparison.h"
#include "puzzle/stages/compress_parent.h"

namespace puzzle {

struct CompareCell {
  std::string name;
  std::string reference;              // cell that it is compared with; empty: the grid's
  std::vector<std::string> settings;  // as written
  // From settings "compress.…": unless its method is "none", the cell's child is not searched for
  // but is the parent itself with its matrices compressed.
  CompressOptions compress;
};

// What is known of a cell of this recipe without running it: name, reference, settings and key.
[[nodiscard]] ComparedCell cell_head(const Recipe& recipe, const CompareCell& cell);

// Runs the cell's recipe up to evaluate, with children named after the cell. Throws as Pipeline.
// On ranks other than 0 the result is empty.
[[nodiscard]] ComparedCell make_cell(const Recipe& recipe, const CompareCell& cell,
                                     Communicator& communicator, const std::string& command);

}  // namespace puzzle
