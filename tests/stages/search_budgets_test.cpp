#include "puzzle/stages/search_budgets.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/mip/highs_solver.h"
#include "puzzle/stages/search_problem.h"
#include "stages/search_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;

TEST(ParseBudget, ReadsWhatPeopleWrite) {
  struct Case {
    const char* text;
    const char* cost;
    double value;
    bool relative;
  };
  const std::vector<Case> cases = {
      {"parameters <= 0.7x", "parameters", 0.7, true},
      {"parameters<=94.2M", "parameters", 94.2e6, false},
      {"  generation_tokens_per_s  >=  1.3x ", "generation_tokens_per_s", 1.3, true},
      {"memory_bytes <= 6GiB", "memory_bytes", 6442450944.0, false},
      {"memory_bytes <= 6 GiB", "memory_bytes", 6442450944.0, false},
      {"weight_bytes <= 3MiB", "weight_bytes", 3145728.0, false},
      {"weight_bytes <= 5KiB", "weight_bytes", 5120.0, false},
      {"weight_bytes <= 5K", "weight_bytes", 5000.0, false},
      {"parameters <= 1.5B", "parameters", 1.5e9, false},
      {"total_s <= 0.25", "total_s", 0.25, false},
      {"total_s <= 1e-3", "total_s", 1e-3, false},
      {"kv_bytes_per_token <= 0", "kv_bytes_per_token", 0.0, false},
  };
  for (const Case& c : cases) {
    const BudgetSpec budget = parse_budget(c.text);
    EXPECT_EQ(budget.text, c.text);
    EXPECT_EQ(budget.cost->name, c.cost) << c.text;
    EXPECT_DOUBLE_EQ(budget.value, c.value) << c.text;
    EXPECT_EQ(budget.relative, c.relative) << c.text;
  }
}

TEST(ParseBudget, RefusesTheRest) {
  for (const std::string text : {"",
                                 "parameters",
                                 "parameters < 5",
                                 "parameters = 5",
                                 "parameters <= ",
                                 "<= 5",
                                 "parameters <= five",
                                 "parameters <= -1",
                                 "parameters <= nan",
                                 "parameters <= inf",
                                 "parameters <= 1e400",
                                 "parameters <= 1e308G",
                                 "parameters <= 5 apples",
                                 "parameters <= 0.7 y",
                                 "parameters <= 5m",
                                 "parameters <= 5 <= 6",
                                 "parameters <= 0x10",
                                 "parameters <= 0.7xx",
                                 "latency <= 5",
                                 "parameters >= 0.7x",
                                 "total_tokens_per_s <= 5",
                                 "total_tokens_per_s >= 0",
                                 "parameters <= 5KiB",
                                 "total_s <= 5M",
                                 "total_s <= 5GiB"}) {
    EXPECT_PUZZLE_ERROR((void)parse_budget(text), ErrorKind::kUsage, "'" + text + "'");
  }
}

TEST(ParseBudget, SaysWhatToWriteInstead) {
  EXPECT_PUZZLE_ERROR((void)parse_budget("parameter <= 0.7x"), ErrorKind::kUsage,
                      "did you mean parameters?");
  EXPECT_PUZZLE_ERROR((void)parse_budget("parameters >= 0.7x"), ErrorKind::kUsage,
                      "parameters is bounded from above; write <=");
  EXPECT_PUZZLE_ERROR((void)parse_budget("generation_tokens_per_s <= 0.7x"), ErrorKind::kUsage,
                      "bounded from below; write >=");
  EXPECT_PUZZLE_ERROR((void)parse_budget("total_s <= 5GiB"), ErrorKind::kUsage,
                      "unknown suffix 'GiB'; expected none or x");
}

TEST(ResolveBudgets, TheTightestOfOneQuantityStands) {
  const test::SearchCase given;
  const CostModel times(given.costs, "test");
  const CostSetting setting{&given.spec, ExportTarget::kNative, {}, &times, {2, 24, 9}};
  const auto parent = model_costs(given.spec.layers, setting);
  // 2 sequences of 8 steps each: a rate of 1.25 times the parent's is 0.8 of its time.
  const auto bounds = resolve_budgets(
      parse_budgets({"generation_s <= 0.9x", "generation_tokens_per_s >= 1.25x", "total_s <= 1"}),
      setting);
  ASSERT_EQ(bounds.size(), 2U);
  EXPECT_EQ(bounds[0].spec.text, "generation_tokens_per_s >= 1.25x");
  EXPECT_NEAR(bounds[0].at_most, 0.8 * parent.at("generation_s"), 1e-12);
  EXPECT_NEAR(bounds[0].at_most, 2 * 8 / (1.25 * parent.at("generation_tokens_per_s")), 1e-12);
  EXPECT_EQ(bounds[1].at_most, 1.0);
}

// The value that a message calls attainable really is, and is the best: the search says so.
TEST(DescribeUnreachable, SpeaksOfTheBudgetAndWhatCanBeMet) {
  const test::SearchCase given;
  const CostModel times(given.costs, "test");
  const CostSetting setting{&given.spec, ExportTarget::kNative, {}, &times, {1, 24, 9}};
  const auto solve = [&](const std::vector<std::string>& texts, std::string* why) {
    const auto bounds = resolve_budgets(parse_budgets(texts), setting);
    const SolveResult result =
        HighsSolver().solve(make_problem(given.space, nullptr, bounds, setting));
    if (result.infeasibility) {
      *why = describe_unreachable(*result.infeasibility, bounds, setting);
    }
    return result.status;
  };
  // Fastest is to leave everything out: 2 ms a step are left, and the parent takes
  // 2 + 3 (3 + 2.88) = 19.64.
  std::string why;
  EXPECT_EQ(solve({"generation_tokens_per_s >= 20x"}, &why), SolveStatus::kInfeasible);
  EXPECT_THAT(why, HasSubstr("generation_tokens_per_s >= 20x (1018.33): the largest attainable"));
  EXPECT_THAT(why, HasSubstr("500 (9.82x)"));
  EXPECT_EQ(why.find("generation_s"), std::string::npos);
  EXPECT_EQ(solve({"generation_tokens_per_s >= 9.82x"}, &why), SolveStatus::kOptimal);
  EXPECT_EQ(solve({"generation_tokens_per_s >= 9.83x"}, &why), SolveStatus::kInfeasible);

  const PartCost fixed = fixed_cost(given.spec, {}, ExportTarget::kNative);
  EXPECT_EQ(solve({"weight_bytes <= 1KiB", "total_s <= 1"}, &why), SolveStatus::kInfeasible);
  EXPECT_THAT(why, HasSubstr("weight_bytes <= 1KiB: the smallest attainable with the other budgets "
                             "held is " +
                             std::to_string(fixed.weight_bytes)));
  EXPECT_THAT(why, HasSubstr("total_s <= 1: the other budgets cannot be met even without this"));
  EXPECT_EQ(solve({"weight_bytes <= " + std::to_string(fixed.weight_bytes)}, &why),
            SolveStatus::kOptimal);
}

}  // namespace
}  // namespace puzzle
