#include "puzzle/app/compare.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "results/made_up_comparison.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::made_up_comparison;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct GridFile {
  CompareGrid load(const std::string& text) {
    write_text_file(folder / "grid.yaml", text);
    return load_compare_grid(folder / "grid.yaml");
  }

  test::TempDir folder;
};

TEST(Compare, ACellChangesSettingsOfTheCommonRecipe) {
  GridFile file;
  write_text_file(file.folder / "base.yaml", "model: a.gguf\nseed: 3\ncompare: [greedy]\n");
  const CompareGrid grid = file.load(
      "recipe: base.yaml\nrun: here\nset: [seed=4, threads=2]\n"
      "cells: [ours, \"paper: init_library.init=paper;  search.budgets=[parameters <= 0.5x] \",\n"
      "  \"wanda vs paper : compress.method=wanda-2of4; seed=5\"]\n");
  EXPECT_EQ(grid.options.reference, "ours");
  ASSERT_EQ(grid.cells.size(), 3U);
  EXPECT_EQ(grid.cells[1].reference, "");
  EXPECT_EQ(grid.cells[2].name, "wanda");
  EXPECT_EQ(grid.cells[2].reference, "paper");
  EXPECT_EQ(grid.cells[1].compress.method, "none");
  EXPECT_EQ(grid.cells[2].compress.method, "wanda-2of4");
  EXPECT_EQ(cell_recipe(grid, grid.cells[2]).seed, 5);
  EXPECT_THAT(grid.cells[1].settings,
              ElementsAre("init_library.init=paper", "search.budgets=[parameters <= 0.5x]"));
  const Recipe ours = cell_recipe(grid, grid.cells[0]);
  EXPECT_EQ(ours.model, "a.gguf");
  EXPECT_EQ(ours.run, "here");
  EXPECT_EQ(ours.seed, 4);
  EXPECT_TRUE(ours.compare.empty());
  EXPECT_EQ(ours.init_library.init, "least-squares");
  const Recipe paper = cell_recipe(grid, grid.cells[1]);
  EXPECT_EQ(paper.threads, 2);
  EXPECT_EQ(paper.init_library.init, "paper");
  EXPECT_THAT(paper.search.budgets, ElementsAre("parameters <= 0.5x"));
}

TEST(Compare, TheProjectsGridsAreSound) {
  const std::filesystem::path folder = std::filesystem::path(PUZZLE_SOURCE_DIR) / "recipes/grids";
  std::size_t cells = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const CompareGrid grid = load_compare_grid(entry.path());
    for (const CompareCell& cell : grid.cells) {
      EXPECT_NO_THROW((void)cell_recipe(grid, cell)) << entry.path() << ": " << cell.name;
      ++cells;
    }
  }
  EXPECT_GE(cells, 10U);
}

TEST(Compare, MistakesInAGridAreNamed) {
  GridFile file;
  const auto refused = [&](const std::string& text, const std::string& message) {
    EXPECT_PUZZLE_ERROR((void)file.load(text), ErrorKind::kUsage, message);
  };
  refused("cells: [a]", "expected recipe");
  refused("recipe: base.yaml", "cells to compare");
  refused("recipe: base.yaml\ncells: [\"a/b: seed=1\"]", "'a/b' is no name");
  refused("recipe: base.yaml\ncells: [a, \"a: seed=1\"]", "'a' stands twice");
  refused("recipe: base.yaml\ncells: [a]\nreference: b", "'b' is none of the cells");
  refused("recipe: base.yaml\ncells: [a, \"b vs c: seed=1\"]", "'c' is none of the cells");
  refused("recipe: base.yaml\ncells: [\"a: compress.method=zip\"]", "wanda-2of4");
  refused("recipe: base.yaml\ncell: [a]", "cell");
}

TEST(Compare, ThePageShowsEveryCell) {
  CompareGrid grid;
  grid.file = "folder/widths.yaml";
  grid.options.recipe = "base.yaml";
  grid.options.reference = "ours";
  grid.options.set = {"threads=2"};
  Comparison comparison = made_up_comparison();
  comparison.cells[0].predicted = 0.0;
  const std::string page = compare_page(grid, comparison, "puzzle compare widths.yaml");
  EXPECT_THAT(page, HasSubstr("# widths\n"));
  EXPECT_THAT(page, HasSubstr("`puzzle compare widths.yaml`"));
  EXPECT_THAT(page, HasSubstr("| ours | 0.3750 ± "));
  EXPECT_THAT(page, HasSubstr("| 1 | 0.000 | 0.750 | 12.5 |"));
  EXPECT_THAT(page, HasSubstr("| 2.000 [1.774, 2.226] |"));
  EXPECT_THAT(page, HasSubstr("| none | no child meets the budgets |"));
  EXPECT_THAT(page, HasSubstr("base.yaml; `threads=2`."));
  EXPECT_THAT(page, HasSubstr("- other, against ours: `seed=1`"));
  EXPECT_THAT(page, HasSubstr(", in `children/ours`"));
  EXPECT_THAT(page, Not(HasSubstr("held-out text/kl |"))) << "there is a column of its own";
  const Json json = compare_json(made_up_comparison());
  EXPECT_EQ(json.at("cells").size(), 3U);
  EXPECT_DOUBLE_EQ(json.at("cells").at(1).at("kl_ratio").at("value").get<double>(), 2.0);
  EXPECT_FALSE(json.at("cells").at(2).contains("kl"));
}

}  // namespace
}  // namespace puzzle
