#include "puzzle/stages/search_check.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "puzzle/arch/cost.h"
#include "stages/search_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

struct CheckCase : test::SearchCase {
  CheckCase() {
    options.types = "f32";
    scenario = {.prompt_tokens = 24, .generated_tokens = 9, .batch = {1}};
  }
  void check() const { check_search_options(options, scenario, "parent"); }
  void check_exact() const { check_exact_budgets(options, scenario, "parent", spec, space); }

  SearchOptions options;
  Scenario scenario;
};

TEST(SearchCheck, NamesEveryProblemAtOnce) {
  CheckCase given;
  EXPECT_NO_THROW(given.check());
  given.options.budgets = {"parameter <= 0.7x", "weight_bytes >= 0.5x"};
  given.options.types = "q9_9";
  for (const char* part : {"did you mean parameters?", "write <=", "q9_9"}) {
    EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, part);
  }
}

TEST(SearchCheck, SweepsThatMeanNothing) {
  CheckCase given;
  given.options.sweep = "speed";
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "search.sweep: there is no cost speed");
  given.options.sweep = "total_s";
  EXPECT_NO_THROW(given.check());
  given.options.sweep_values = {"0.9x", "0.9x"};
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "sweep_values: 0.9x stands twice");
  given.options.sweep_values = {"0.9y"};
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "0.9y");
  given.options.sweep_values.clear();
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "search.sweep_values is empty");
  given.options.sweep = "generation_tokens_per_s";
  given.options.sweep_values = {"1.2x"};
  EXPECT_NO_THROW(given.check());
  given.scenario.generated_tokens = 1;
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "there is no such rate");
}

TEST(SearchCheck, SettingsWithoutEffect) {
  CheckCase given;
  given.options.method = "greedy";
  given.options.solutions = 3;
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "gives one only");
  given.options.solutions = 1;
  given.options.baselines = {"uniform", "uniform"};
  EXPECT_PUZZLE_ERROR(given.check(), ErrorKind::kUsage, "baselines: uniform stands twice");
}

// Layers hold at least their norms' 0 parameters; embedding, head and final norm stay.
TEST(SearchCheck, ExactBudgetsAreRefusedBeforeAnythingRuns) {
  CheckCase given;
  given.options.target = "native";
  const std::int64_t fixed = fixed_cost(given.spec, {}, ExportTarget::kNative).parameters;
  given.options.budgets = {"parameters <= " + std::to_string(fixed)};
  EXPECT_NO_THROW(given.check_exact());
  given.options.budgets = {"parameters <= " + std::to_string(fixed - 1), "total_s <= 1e-9"};
  EXPECT_PUZZLE_ERROR(
      given.check_exact(), ErrorKind::kInfeasible,
      "the smallest attainable with the other budgets held is " + std::to_string(fixed));
  given.options.budgets = {"total_s <= 1e-9"};  // measured: not known yet
  EXPECT_NO_THROW(given.check_exact());
}

TEST(SearchCheck, OneBatchSizeThatFitsIsEnough) {
  CheckCase given;
  given.options.target = "native";
  given.scenario.batch = {4, 1};
  const auto fixed =
      static_cast<double>(fixed_cost(given.spec, {}, ExportTarget::kNative).weight_bytes);
  given.options.budgets = {fmt::format("memory_bytes <= {:.0f}", fixed)};
  EXPECT_NO_THROW(given.check_exact());
  given.options.budgets = {fmt::format("memory_bytes <= {:.0f}", fixed - 1.0)};
  for (const char* part : {"batch 4: memory_bytes", "batch 1: memory_bytes"}) {
    EXPECT_PUZZLE_ERROR(given.check_exact(), ErrorKind::kInfeasible, part);
  }
  // In deci one layer keeps KV heads, so its cache counts for each sequence.
  given.options.target = "deci";
  given.options.budgets = {"kv_bytes_per_token <= 0"};
  EXPECT_PUZZLE_ERROR(given.check_exact(), ErrorKind::kInfeasible, "the smallest attainable");
}

}  // namespace
}  // namespace puzzle
