// The examples of docs/formats.md are what the program reads and writes.
#include <filesystem>
#include <map>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "data/toy_tokenizer.h"
#include "puzzle/app/compare.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/data/eval_sets.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/engine/cost_table_file.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/mip/problem_file.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

// Fenced blocks by the last word of their info string: "```json puzzle-problem".
std::map<std::string, std::string> page_examples() {
  const std::string page =
      read_text_file(std::filesystem::path(PUZZLE_SOURCE_DIR) / "docs/formats.md");
  std::map<std::string, std::string> examples;
  for (std::size_t at = page.find("\n```"); at != std::string::npos; at = page.find("\n```", at)) {
    const std::size_t line_end = page.find('\n', at + 1);
    const std::size_t end = page.find("\n```\n", line_end);
    const std::string info = page.substr(at + 1, line_end - at - 1);
    examples[info.substr(info.rfind(' ') + 1)] = page.substr(line_end + 1, end - line_end);
    at = end + 4;
  }
  return examples;
}

// A solution file without what differs between runs.
Json without_seconds(Json solution) {
  solution.erase("seconds");
  for (Json& entry : solution.at("solutions")) {
    entry.erase("seconds");
  }
  return solution;
}

TEST(FormatsPage, TheProblemHasTheSolutionShown) {
  const auto examples = page_examples();
  const Json json = parse_json(examples.at("puzzle-problem"), "docs/formats.md");
  Problem problem = parse_problem(json, "docs/formats.md");
  EXPECT_EQ(without_seconds(result_json(problem, HighsSolver().solve(problem))),
            without_seconds(parse_json(examples.at("puzzle-solution"), "docs/formats.md")));
  problem.budgets.at(0).at_most = 5.0;
  EXPECT_EQ(
      without_seconds(result_json(problem, HighsSolver().solve(problem))),
      without_seconds(parse_json(examples.at("puzzle-solution-infeasible"), "docs/formats.md")));
}

TEST(FormatsPage, TheCostTableLoads) {
  const CostTable table = parse_cost_table(page_examples().at("puzzle-costs"), "docs/formats.md");
  EXPECT_EQ(table.engine, "vllm 0.11");
  ASSERT_EQ(table.rows.size(), 6U);
  const CostModel model(table.rows, "docs/formats.md");
  EXPECT_DOUBLE_EQ(model.seconds("ffn/w14336", Phase::kGenerate, 64, 2048), 0.00021);
  EXPECT_DOUBLE_EQ(model.seconds("fixed", Phase::kPrefill, 64, 2048), 0.0009);
}

TEST(FormatsPage, TheEvaluationSetsLoad) {
  const auto examples = page_examples();
  const test::TempDir folder;
  const test::ToyTokenizer tokenizer;
  const auto load = [&](EvalKind kind, const std::string& name) {
    write_text_file(folder / (name + ".jsonl"), examples.at(name));
    return load_eval_set(kind, folder / (name + ".jsonl"), tokenizer);
  };
  EXPECT_EQ(load(EvalKind::kMinimalPairs, "minimal-pairs").questions.size(), 2U);
  const EvalSet choices = load(EvalKind::kMultipleChoice, "multiple-choice");
  ASSERT_EQ(choices.questions.size(), 2U);
  EXPECT_EQ(choices.questions[0].choices.size(), 3U);
  EXPECT_EQ(choices.questions[1].answer, 1);
  const EvalSet words = load(EvalKind::kLastWord, "last-word");
  ASSERT_EQ(words.questions.size(), 1U);
  EXPECT_EQ(words.questions[0].choices.at(0).num_continuation_bytes, 4);  // door
}

TEST(FormatsPage, TheGridIsSoundForTheProjectsRecipe) {
  const std::filesystem::path recipes = std::filesystem::path(PUZZLE_SOURCE_DIR) / "recipes";
  const test::TempDir folder;
  std::filesystem::copy_file(recipes / "smollm2-cpu.yaml", folder / "smollm2-cpu.yaml");
  write_text_file(folder / "grid.yaml", page_examples().at("grid"));
  const CompareGrid grid = load_compare_grid(folder / "grid.yaml");
  ASSERT_EQ(grid.cells.size(), 4U);
  EXPECT_EQ(grid.cells[2].reference, "ours");
  EXPECT_EQ(grid.cells[3].compress.kept, 0.6);
  for (const CompareCell& cell : grid.cells) {
    EXPECT_EQ(cell_recipe(grid, cell).train_child, cell.name == "trained") << cell.name;
  }
}

}  // namespace
}  // namespace puzzle
