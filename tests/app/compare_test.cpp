#include "puzzle/app/compare.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/validate.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/run_db.h"
#include "results/made_up_comparison.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
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
      "recipe: base.yaml\nrun: here\ntitle: Three\nset: [seed=4, threads=2]\n"
      "cells: [ours, \"paper: init_library.init=paper;  search.budgets=[parameters <= 0.5x] \",\n"
      "  \"wanda vs paper : compress.method=wanda-2of4; seed=5\"]\n");
  EXPECT_EQ(grid.options.reference, "ours");
  EXPECT_EQ(grid.options.title, "Three");
  EXPECT_EQ(file.load("recipe: base.yaml\ncells: [a]").options.title, "grid");
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

TEST(Compare, CellsHaveOneFolder) {
  GridFile file;
  write_text_file(file.folder / "base.yaml", "model: a.gguf\n");
  const CompareGrid grid = file.load("recipe: base.yaml\nset: [run=elsewhere]\ncells: [a]");
  EXPECT_PUZZLE_ERROR((void)cell_recipe(grid, grid.cells[0]), ErrorKind::kUsage,
                      "the folder of all cells is the grid's `run`, or --run");
}

TEST(Compare, AWrongSettingIsNamedWhereItStands) {
  GridFile file;
  const std::string path = (file.folder / "grid.yaml").string();
  write_text_file(file.folder / "base.yaml", "model: a.gguf\n");
  CompareGrid grid =
      file.load("recipe: base.yaml\ncells: [a, \"b: train_chld=false\", \"c: seed\"]");
  EXPECT_PUZZLE_ERROR((void)cell_recipe(grid, grid.cells[1]), ErrorKind::kUsage,
                      path + ": cell b: there is no option train_chld");
  EXPECT_PUZZLE_ERROR((void)cell_recipe(grid, grid.cells[2]), ErrorKind::kUsage,
                      path + ": cell c: 'seed', expected name=value");
  grid.options.set = {"threads=2", "threds=2"};
  EXPECT_PUZZLE_ERROR((void)cell_recipe(grid, grid.cells[0]), ErrorKind::kUsage,
                      path + ": set: there is no option threds");
  grid.num_command_settings = 1;
  EXPECT_PUZZLE_ERROR((void)cell_recipe(grid, grid.cells[0]), ErrorKind::kUsage,
                      "--set: there is no option threds");
  EXPECT_PUZZLE_ERROR((void)file.load("recipe: base.yaml\ncells: [\"a: compress.x=1\"]"),
                      ErrorKind::kUsage, path + ": cell a: there is no option compress.x");
}

TEST(Compare, ACellWithoutAParentIsRefusedLikeARun) {
  GridFile file;
  write_text_file(file.folder / "base.yaml", "seed: 3\n");
  EXPECT_PUZZLE_ERROR(check_cell_recipes(file.load("recipe: base.yaml\ncells: [a]")),
                      ErrorKind::kUsage, "cell a: recipe: model is empty; name the parent");
}

TEST(Compare, TheProjectsGridsAreSound) {
  const std::filesystem::path folder = std::filesystem::path(PUZZLE_SOURCE_DIR) / "recipes/grids";
  std::size_t cells = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const CompareGrid grid = load_compare_grid(entry.path());
    for (const CompareCell& cell : grid.cells) {
      SCOPED_TRACE(entry.path().string() + ": " + cell.name);
      Recipe recipe = cell_recipe(grid, cell);
      recipe.model = (std::filesystem::path(PUZZLE_SOURCE_DIR) / recipe.model).string();
      PUZZLE_REQUIRE_FILE(recipe.model);  // the parent is fetched by the demo
      ++cells;
      // Of one's own; the file says where.
      recipe.evaluate.questions.minimal_pairs.clear();
      recipe.evaluate.questions.multiple_choice.clear();
      recipe.score.questions.minimal_pairs = {entry.path().string()};
      if (recipe.score.method != "downstream") {
        recipe.score.questions.minimal_pairs.clear();
      }
      EXPECT_NO_THROW(validate(recipe, load_model_spec(recipe.model), UselessSettings::kLetPass,
                               CorpusCheck::kMayBeMissing));
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
  refused("recipe: base.yaml\ncells: [parent]", "call it something else");
  refused("recipe: base.yaml\ncells: [a, \"a: seed=1\"]", "'a' stands twice");
  refused("recipe: base.yaml\ncells: [a]\nreference: b", "'b' is none of the cells");
  refused("recipe: base.yaml\ncells: [a, \"b vs c: seed=1\"]",
          "grid.yaml: cell b: vs: 'c' is none of the cells");
  refused("recipe: base.yaml\ncells: [\"a: compress.method=zip\"]", "wanda-2of4");
  refused("recipe: base.yaml\ncells: [\"a: communicator.timeout_s=1\"]", "give it in set");
  refused("recipe: base.yaml\ncell: [a]", "cell");
  refused("recipe: base.yaml\ncells:\n  - ours: seed=1\n", "grid.yaml:3: cells holds the mapping");
  refused("seed: 1\ntrain_blocks: false\n", "grid.yaml: is a recipe, expected a grid");
  refused("train_blocks: false\ncells: [a]\n", "`puzzle compare --help` shows what a grid holds");
}

ComparedGrid made_up_grid() {
  ComparedGrid made;
  made.grid.file = "folder/made-up.yaml";
  made.grid.options.recipe = "base.yaml";
  made.grid.options.title = "Made up";
  made.grid.options.reference = "ours";
  made.grid.options.set = {"threads=2"};
  made.grid.cells = {{.name = "ours", .reference = {}, .settings = {"seed=1"}, .compress = {}},
                     {.name = "other", .reference = "ours", .settings = {"seed=1"}, .compress = {}},
                     {.name = "none", .reference = {}, .settings = {}, .compress = {}},
                     {.name = "later", .reference = {}, .settings = {"seed=2"}, .compress = {}}};
  made.comparison = made_up_comparison();
  return made;
}

TEST(Compare, ThePageShowsEveryCellOfEveryGrid) {
  ComparedGrid first = made_up_grid();
  first.comparison.cells[0].predicted = 0.0;
  ComparedGrid second = made_up_grid();
  second.grid.file = "folder/second.yaml";
  second.grid.options.title = "Second";
  second.grid.options.about = "What came out.\n";
  second.comparison.cells.clear();
  const std::string page = compare_page({first, second});
  EXPECT_THAT(page, HasSubstr("## Made up\n\n| cell"));
  EXPECT_THAT(
      page,
      HasSubstr("Made by `puzzle compare folder/made-up.yaml`: another build; this build.\n"));
  EXPECT_THAT(page,
              HasSubstr("| --- |\n| parent | 0 | - | - | 1 | - | 10.5 | - |\n| ours | 0.3750 ± "));
  EXPECT_THAT(page,
              HasSubstr("| 1 | 0.000 | 0.750 | generation_s 0.500, parameters 0.760 | 12.5 |"));
  EXPECT_THAT(page, HasSubstr("| 2.000 [1.503, 2.497] | – |"));
  // Rows without numbers are as wide as the table: there is one metric.
  EXPECT_THAT(page, HasSubstr("| none | no child found | - | - | - | - | - | - |\n"));
  EXPECT_THAT(page, HasSubstr("| later | not run yet | - | - | - | - | - | - |\n"));
  EXPECT_THAT(page, HasSubstr("All cells: `folder/base.yaml`; `threads=2`."));
  EXPECT_THAT(page, HasSubstr("- other, against ours: `seed=1`"));
  EXPECT_THAT(page, HasSubstr(", in `children/ours`"));
  EXPECT_THAT(page, HasSubstr("- later: `seed=2`\n"));
  EXPECT_THAT(page, Not(HasSubstr("held-out text/kl |"))) << "there is a column of its own";
  EXPECT_THAT(page, HasSubstr("## Second\n\nWhat came out.\n\n| cell"));
  EXPECT_THAT(page, HasSubstr("| ours | not run yet |"));
  // Another grid goes below them, the same one into its place.
  ComparedGrid third = made_up_grid();
  third.grid.file = "folder/third.yaml";
  third.grid.options.title = "Third";
  first.grid.options.title = "Made anew";
  const std::string again = compare_page({third, first}, page);
  EXPECT_LT(again.find("## Made anew"), again.find("## Third"));
  EXPECT_THAT(again, Not(HasSubstr("## Made up")));
  EXPECT_EQ(compare_page({third, first}, again), again);
  EXPECT_EQ(compare_page({first}, "# A page of another kind\n"), compare_page({first}));
  const Json json = compare_json({first, second}).at("grids");
  ASSERT_EQ(json.size(), 2U);
  EXPECT_EQ(json.at(0).at("name"), "made-up");
  const Json& cells = json.at(0).at("cells");
  EXPECT_EQ(cells.size(), 3U);
  EXPECT_DOUBLE_EQ(cells.at(1).at("kl_ratio").at("value").get<double>(), 2.0);
  EXPECT_FALSE(cells.at(2).contains("kl"));
}

TEST(Compare, OfWhatIsRecordedOnlyCellsOfTheSameRecipeCount) {
  GridFile file;
  const auto load = [&](const std::string& base, const std::string& set) {
    write_text_file(file.folder / "base.yaml", base);
    CompareGrid grid =
        file.load("recipe: base.yaml\nset: [" + set + "]\ncells: [ours, \"other: seed=1\"]\n");
    grid.options.run = file.folder.path().string();
    return grid;
  };
  const CompareGrid grid = load("model: a.gguf\n", "threads=2");
  EXPECT_TRUE(recorded_compare(grid).cells.empty()) << "no run.db yet";
  CompareGrid wrong = grid;
  wrong.cells[1].settings = {"sead=1"};
  EXPECT_PUZZLE_ERROR((void)recorded_compare(wrong), ErrorKind::kUsage,
                      "cell other: there is no option sead");
  RunDb db(file.folder / "run.db");
  Comparison recorded = recorded_compare(grid);
  for (const CompareCell& cell : grid.cells) {
    recorded.cells.push_back(cell_head(cell_recipe(grid, cell), cell));
    recorded.cells.back().kl_sums = {1.0};
  }
  put_comparison(db, recorded);
  ASSERT_EQ(recorded_compare(grid).cells.size(), 2U);
  EXPECT_EQ(recorded_compare(grid).cells[1].settings, "seed=1");
  EXPECT_EQ(recorded_compare(grid).cells[1].kl_sums, std::vector{1.0});

  EXPECT_TRUE(recorded_compare(load("model: b.gguf\n", "threads=2")).cells.empty());
  CompareGrid changed = load("model: a.gguf\n", "threads=2");
  changed.cells[0].settings = {"seed=3"};
  ASSERT_EQ(recorded_compare(changed).cells.size(), 1U);
  EXPECT_EQ(recorded_compare(changed).cells[0].name, "other");

  // With other settings for all of them it is another comparison, beside the first.
  const CompareGrid beside = load("model: a.gguf\n", "threads=1");
  EXPECT_TRUE(recorded_compare(beside).cells.empty());
  put_comparison(db, recorded_compare(beside));
  EXPECT_EQ(load_comparisons(db).size(), 2U);
  EXPECT_EQ(recorded_compare(grid).cells.size(), 2U);
}

}  // namespace
}  // namespace puzzle
