// A grid of recipes in one folder.
#include <filesystem>
#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "e2e/tiny_run.h"

namespace puzzle {
namespace {

using test::ProgramResult;
using test::run_program;
using ::testing::HasSubstr;
using ::testing::Not;

struct Grid {
  Grid() {
    test::make_run_inputs(folder.path());
    std::vector<std::string> words = test::run_arguments("run", folder.path(), folder / "unused");
    test::add_training(words);
    words.push_back("--print-config");
    const ProgramResult config = run_program(words);
    EXPECT_EQ(config.exit_code, 0) << config.err;
    write_text_file(folder / "base.yaml", config.out);
    write_text_file(folder / "grid.yaml",
                    "recipe: base.yaml\ncells:\n  - ours\n  - \"paper: init_library.init=paper; "
                    "score.method=replace-one; repair_child=false\"\n  - \"uniform: "
                    "search.method=uniform\"\n  - \"tiny: search.budgets=[parameters <= 0.01x]\"\n"
                    "  - \"wanda: compress.method=wanda-2of4\"\n");
  }
  [[nodiscard]] std::vector<std::string> words(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"compare", (folder / "grid.yaml").string(), "--run",
                                    (folder / "cells").string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  [[nodiscard]] std::size_t num_libraries() const {
    namespace fs = std::filesystem;
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder / "cells/library"), fs::directory_iterator()));
  }

  test::TempDir folder;
};

TEST(Compare, CellsShareTheirWorkAndAreMadeOnce) {
  const Grid grid;
  const ProgramResult first = run_program(grid.words({"--json"}));
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("compare: tiny: "));
  const Json cells = parse_json(first.out, "stdout").at("grids").at(0).at("cells");
  ASSERT_EQ(cells.size(), 5U);
  EXPECT_EQ(cells.at(0).at("kl_ratio").at("value"), 1.0);
  EXPECT_GT(cells.at(1).at("kl").at("value").get<double>(), 0.0);
  EXPECT_LE(cells.at(2).at("parameters").get<double>(), 0.9);
  EXPECT_FALSE(cells.at(3).contains("kl"));
  EXPECT_GT(cells.at(4).at("kl").at("value").get<double>(), 0.0);
  EXPECT_LT(cells.at(4).at("parameters").get<double>(), 1.0);
  // One library as initialised and one trained, for ours and uniform together, and two of the
  // paper's.
  EXPECT_EQ(grid.num_libraries(), 4U);
  const auto children = [&] {
    std::map<std::string, int> found;  // by what their names begin with
    for (const auto& entry : std::filesystem::directory_iterator(grid.folder / "cells/children")) {
      const std::string name = entry.path().filename();
      ++found[name.substr(0, name.find('-'))];
    }
    return found;
  };
  const std::map<std::string, int> made = {{"ours", 1},  {"paper", 1},     {"uniform", 1},
                                           {"wanda", 1}, {"assembled", 3}, {"repaired", 2}};
  EXPECT_EQ(children(), made);
  for (const std::size_t cell : {0, 1, 2, 4}) {
    const std::string folder = cells.at(cell).at("folder");
    EXPECT_TRUE(std::filesystem::exists(grid.folder / "cells" / folder / "config.json")) << folder;
  }
  const std::string page = read_text_file(grid.folder / "cells/compare.md");
  EXPECT_THAT(page, HasSubstr("| parent | 0 | - | - | 1 | "));
  EXPECT_THAT(page, HasSubstr("| paper | "));
  EXPECT_THAT(page, HasSubstr("held-out text/perplexity"));

  EXPECT_THAT(read_text_file(grid.folder / "cells/report.html"), HasSubstr("Recipes compared"));

  const ProgramResult again = run_program(grid.words({"--json"}));
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(parse_json(again.out, "stdout"), parse_json(first.out, "stdout"));
  const ProgramResult recorded = run_program(grid.words({"--recorded", "--json"}));
  ASSERT_EQ(recorded.exit_code, 0) << recorded.err;
  EXPECT_EQ(parse_json(recorded.out, "stdout"), parse_json(first.out, "stdout"));
  EXPECT_THAT(recorded.err, Not(HasSubstr("compare: ours")));

  const ProgramResult other = run_program(grid.words(
      {"--set", "distill_child.num_tokens=2048", "--output", (grid.folder / "page.md").string()}));
  ASSERT_EQ(other.exit_code, 0) << other.err;
  EXPECT_EQ(grid.num_libraries(), 4U);
  // What other training starts from is there already, and its children are not the first ones'.
  std::map<std::string, int> both = made;
  for (const char* cell : {"ours", "paper", "uniform"}) {
    both[cell] = 2;
  }
  EXPECT_EQ(children(), both);
  EXPECT_EQ(read_text_file(grid.folder / "page.md"), other.out);
  // Beside the first comparison, which is still there.
  EXPECT_EQ(parse_json(run_program(grid.words({"--recorded", "--json"})).out, "stdout"),
            parse_json(first.out, "stdout"));

  // A new cell that fails takes nothing away from what was recorded.
  write_text_file(grid.folder / "bad.jsonl", "{}\n");
  const std::string sound_grid = read_text_file(grid.folder / "grid.yaml");
  std::string grid_text = sound_grid;
  const std::string first_cell = "  - ours\n";
  grid_text.insert(grid_text.find(first_cell), "  - \"broken: evaluate.minimal_pairs=[" +
                                                   (grid.folder / "bad.jsonl").string() + "]\"\n");
  write_text_file(grid.folder / "grid.yaml", grid_text + "reference: ours\n");
  const ProgramResult broken = run_program(grid.words());
  EXPECT_EQ(broken.exit_code, 3);
  EXPECT_THAT(broken.err, HasSubstr("cell broken: "));
  EXPECT_EQ(parse_json(run_program(grid.words({"--recorded", "--json"})).out, "stdout"),
            parse_json(first.out, "stdout"));

  // What only further cells would need goes once the grid is through.
  const std::string cells_folder = (grid.folder / "cells").string();
  EXPECT_EQ(run_program({"clean", cells_folder}).exit_code, 2);
  write_text_file(grid.folder / "grid.yaml", sound_grid);
  ASSERT_EQ(run_program(grid.words()).exit_code, 0);
  const ProgramResult cleaned = run_program({"clean", cells_folder});
  ASSERT_EQ(cleaned.exit_code, 0) << cleaned.err;
  EXPECT_FALSE(std::filesystem::exists(grid.folder / "cells/library"));
  EXPECT_EQ(children(),
            (std::map<std::string, int>{{"ours", 2}, {"paper", 2}, {"uniform", 2}, {"wanda", 1}}));
  EXPECT_EQ(parse_json(run_program(grid.words({"--recorded", "--json"})).out, "stdout"),
            parse_json(first.out, "stdout"));
}

TEST(Compare, APageThatCannotBeWrittenShowsBeforeTheFirstCell) {
  const Grid grid;
  const std::string notes = (grid.folder / "notes.md").string();
  write_text_file(notes, "# My notes\n");
  const ProgramResult other = run_program(grid.words({"--output", notes}));
  EXPECT_EQ(other.exit_code, 2) << other.err;
  EXPECT_THAT(other.err, HasSubstr("is no page of `puzzle compare`"));
  EXPECT_EQ(read_text_file(notes), "# My notes\n");
  make_folder(grid.folder / "more");
  write_text_file(grid.folder / "more/grid.yaml", "recipe: ../base.yaml\ncells: [ours]\n");
  const ProgramResult twins = run_program(grid.words({(grid.folder / "more/grid.yaml").string()}));
  EXPECT_EQ(twins.exit_code, 2) << twins.err;
  EXPECT_THAT(twins.err, HasSubstr("are of one name"));
  EXPECT_FALSE(std::filesystem::exists(grid.folder / "cells"));
}

TEST(Compare, AMistakeInTheLastCellShowsBeforeTheFirstRuns) {
  const Grid grid;
  for (const char* wrong : {"init_library.inti=paper", "search.budgets=[paramters <= 0.5x]",
                            "distill_blocks.sources=[elsewhere]"}) {
    write_text_file(
        grid.folder / "grid.yaml",
        "recipe: base.yaml\ncells:\n  - ours\n  - \"wrong: " + std::string(wrong) + "\"\n");
    const ProgramResult result = run_program(grid.words());
    EXPECT_EQ(result.exit_code, 2) << wrong;
    EXPECT_THAT(result.err,
                HasSubstr(wrong == std::string("init_library.inti=paper") ? "init_library.inti"
                                                                          : "cell wrong: "));
    EXPECT_FALSE(std::filesystem::exists(grid.folder / "cells"));
  }
}

}  // namespace
}  // namespace puzzle
