#include "puzzle/stages/search_problem.h"

#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "stages/search_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(ParseBudget, ReadsWhatPeopleWrite) {
  struct Case {
    const char* text;
    const char* cost;
    bool at_most;
    double value;
    bool relative;
  };
  const std::vector<Case> cases = {
      {"parameters <= 0.7x", "parameters", true, 0.7, true},
      {"parameters<=94.2M", "parameters", true, 94.2e6, false},
      {"  generation_tokens_per_s  >=  1.3x ", "generation_tokens_per_s", false, 1.3, true},
      {"memory_bytes <= 6GiB", "memory_bytes", true, 6442450944.0, false},
      {"memory_bytes <= 6 GiB", "memory_bytes", true, 6442450944.0, false},
      {"weight_bytes <= 3MiB", "weight_bytes", true, 3145728.0, false},
      {"weight_bytes <= 5KiB", "weight_bytes", true, 5120.0, false},
      {"weight_bytes <= 5K", "weight_bytes", true, 5000.0, false},
      {"parameters <= 1.5B", "parameters", true, 1.5e9, false},
      {"parameters >= 2G", "parameters", false, 2e9, false},
      {"total_s <= 0.25", "total_s", true, 0.25, false},
      {"total_s <= 1e-3", "total_s", true, 1e-3, false},
      {"kv_bytes_per_token <= 0", "kv_bytes_per_token", true, 0.0, false},
  };
  for (const Case& c : cases) {
    const BudgetSpec budget = parse_budget(c.text);
    EXPECT_EQ(budget.text, c.text);
    EXPECT_EQ(budget.cost, c.cost) << c.text;
    EXPECT_EQ(budget.at_most, c.at_most) << c.text;
    EXPECT_DOUBLE_EQ(budget.value, c.value) << c.text;
    EXPECT_EQ(budget.relative, c.relative) << c.text;
  }
}

TEST(ParseBudget, RefusesTheRest) {
  for (const std::string text :
       {"", "parameters", "parameters < 5", "parameters = 5", "parameters <= ", "<= 5",
        "parameters <= five", "parameters <= -1", "parameters <= nan", "parameters <= inf",
        "parameters <= 1e400", "parameters <= 1e308G", "parameters <= 5 apples",
        "parameters <= 0.7 y", "parameters <= 5m", "parameters <= 5 <= 6", "parameters <= 0x10",
        "parameters <= 0.7xx"}) {
    EXPECT_PUZZLE_ERROR((void)parse_budget(text), ErrorKind::kUsage, "'" + text + "'");
  }
}

std::vector<BudgetSpec> budgets(const std::vector<std::string>& texts) {
  std::vector<BudgetSpec> specs;
  for (const std::string& text : texts) {
    specs.push_back(parse_budget(text));
  }
  return specs;
}

const Budget& budget_on(const Problem& problem, const std::string& cost) {
  for (const Budget& budget : problem.budgets) {
    if (budget.cost == cost) {
      return budget;
    }
  }
  throw std::out_of_range("no budget on " + cost);
}

struct ProblemCase : test::SearchCase {
  ProblemCase() : times(costs, "test"), scores(rows, spec, "kl") {}
  [[nodiscard]] CostSetting setting(ExportTarget target = ExportTarget::kDeci,
                                    std::int64_t batch = 2) const {
    return {.parent = &spec,
            .target = target,
            .types = {DType::kQ8_0, DType::kF16, DType::kF32, DType::kF16},
            .times = &times,
            .workload = {.batch = batch, .prompt_tokens = 24, .generated_tokens = 9}};
  }
  [[nodiscard]] Problem problem(const std::vector<std::string>& texts,
                                const CostSetting& with) const {
    return make_problem(space, scores, budgets(texts), with);
  }

  CostModel times;
  ScoreTable scores;
};

Assignment random_assignment(const Problem& problem, std::mt19937& random) {
  Assignment assignment;
  for (const auto& choices : problem.layers) {
    assignment.push_back(random() % choices.size());
  }
  return assignment;
}

TEST(SearchProblem, SumsOfCostsAreThoseOfTheWholeModel) {
  const ProblemCase given;
  std::mt19937 random(3);
  for (const ExportTarget target :
       {ExportTarget::kNative, ExportTarget::kDeci, ExportTarget::kNemotronNas}) {
    const CostSetting setting = given.setting(target);
    const Problem problem = given.problem({}, setting);
    EXPECT_NO_THROW(check_problem(problem, ErrorKind::kUsage, "test"));
    for (int i = 0; i < 200; ++i) {
      const Assignment assignment = random_assignment(problem, random);
      const Evaluation sums = evaluate(problem, assignment);
      const auto whole = model_costs(chosen_blocks(problem, assignment), setting);
      for (std::size_t c = 0; c < problem.cost_names.size(); ++c) {
        const double expected = whole.at(problem.cost_names[c]);
        if (problem.cost_names[c].ends_with("_s")) {
          EXPECT_NEAR(sums.costs[c], expected, 1e-12) << problem.cost_names[c];
        } else {
          EXPECT_EQ(sums.costs[c], expected) << problem.cost_names[c];
        }
      }
    }
  }
}

TEST(SearchProblem, CostsByHand) {
  const ProblemCase given;
  CostSetting setting = given.setting(ExportTarget::kNative, 2);
  setting.types = {DType::kF32, DType::kF32, DType::kF32, DType::kF16};
  const Architecture layers = {parse_block("kv4/w96"), parse_block("none/none"),
                               parse_block("kv1/linear")};
  const auto costs = model_costs(layers, setting);
  // D 64, H E 128, V 516; norms 64 each; head of its own.
  const double fixed = 2 * 516 * 64 + 64;
  const double first = 4 * 128 * 64 + 64 + 3 * 96 * 64 + 64;
  const double third = 2 * 128 * 64 + 2 * 32 * 64 + 64 + 64 * 64 + 64;
  EXPECT_EQ(costs.at("parameters"), fixed + first + third);
  EXPECT_EQ(costs.at("weight_bytes"), 4 * (fixed + first + third));
  const double kv = 2 * (4 + 1) * 32 * 2;  // keys and values, heads, width, F16
  EXPECT_EQ(costs.at("kv_bytes_per_token"), kv);
  EXPECT_EQ(costs.at("memory_bytes"), costs.at("weight_bytes") + 2 * (24 + 9) * kv);
  const double step = test::SearchCase::step_seconds(layers, 2);
  EXPECT_NEAR(costs.at("generation_s"), 8 * step, 1e-12);
  EXPECT_NEAR(costs.at("prefill_s"), 10 * step, 1e-12);
  EXPECT_NEAR(costs.at("total_s"), 18 * step, 1e-12);
  EXPECT_NEAR(costs.at("generation_tokens_per_s"), 2 * 8 / (8 * step), 1e-6);
  EXPECT_NEAR(costs.at("total_tokens_per_s"), 2 * 33 / (18 * step), 1e-6);
}

TEST(SearchProblem, ChoicesAreTheBlocksWithTheirScores) {
  const ProblemCase given;
  const Problem problem = given.problem({}, given.setting());
  ASSERT_EQ(problem.layers.size(), 3U);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    std::set<std::string> names;
    for (const Choice& choice : problem.layers[layer]) {
      names.insert(choice.name);
      EXPECT_EQ(
          choice.score,
          given.scores.block(static_cast<std::int64_t>(layer), parse_block(choice.name)).value);
    }
    EXPECT_EQ(names.size(), problem.layers[layer].size());
    // In deci the first layer is not left out whole.
    EXPECT_EQ(names.contains("none/none"), layer != 0);
    EXPECT_EQ(names.size(), layer == 0 ? 15U : 16U);
  }
  EXPECT_EQ(given.problem({}, given.setting(ExportTarget::kNative)).layers[0].size(), 16U);
}

TEST(SearchProblem, BlocksThatTheTargetCannotHoldAreNoChoices) {
  ProblemCase given;
  // No such heads in a model of four; make_search_space would refuse them for the parent.
  given.space.layers[1].attention.push_back(AttentionSpec::gqa(3));
  const Problem problem = given.problem({}, given.setting());
  EXPECT_EQ(problem.layers[1].size(), 16U);
  for (const Choice& choice : problem.layers[1]) {
    EXPECT_FALSE(choice.name.starts_with("kv3/")) << choice.name;
  }
}

TEST(SearchProblem, DeciNeedsALayerWithGroupedQueries) {
  const ProblemCase given;
  EXPECT_TRUE(given.problem({}, given.setting(ExportTarget::kNative)).covers.empty());
  const Problem problem = given.problem({}, given.setting());
  ASSERT_EQ(problem.covers.size(), 1U);
  std::mt19937 random(5);
  int without = 0;
  for (int i = 0; i < 300; ++i) {
    const Assignment assignment = random_assignment(problem, random);
    bool any = false;
    for (const BlockSpec& block : chosen_blocks(problem, assignment)) {
      any = any || block.attention.kind == AttentionKind::kGqa;
    }
    EXPECT_EQ(is_feasible(problem, assignment), any);
    without += any ? 0 : 1;
  }
  EXPECT_GT(without, 0);
}

TEST(SearchProblem, BudgetsAreResolvedAgainstTheParent) {
  const ProblemCase given;
  const CostSetting setting = given.setting();
  const auto parent = model_costs(given.spec.layers, setting);
  const Problem problem =
      given.problem({"parameters <= 0.7x", "weight_bytes <= 100KiB", "weight_bytes <= 99KiB",
                     "parameters >= 0.2x", "kv_bytes_per_token >= 1", "kv_bytes_per_token >= 100"},
                    setting);
  ASSERT_EQ(problem.budgets.size(), 3U);
  EXPECT_DOUBLE_EQ(*budget_on(problem, "parameters").at_most, 0.7 * parent.at("parameters"));
  EXPECT_DOUBLE_EQ(*budget_on(problem, "parameters").at_least, 0.2 * parent.at("parameters"));
  EXPECT_DOUBLE_EQ(*budget_on(problem, "weight_bytes").at_most, 99.0 * 1024);
  EXPECT_FALSE(budget_on(problem, "weight_bytes").at_least);
  EXPECT_DOUBLE_EQ(*budget_on(problem, "kv_bytes_per_token").at_least, 100);
  EXPECT_EQ(describe_budget(parse_budget("parameters <= 1000"), setting), "parameters <= 1000");
  EXPECT_EQ(describe_budget(parse_budget("kv_bytes_per_token <= 0.5x"), setting),
            "kv_bytes_per_token <= 768 (0.5x the parent's)");
}

TEST(SearchProblem, AThroughputIsABoundOnTime) {
  const ProblemCase given;
  const CostSetting setting = given.setting();
  const auto parent = model_costs(given.spec.layers, setting);
  for (const std::string rate : {"generation_tokens_per_s", "total_tokens_per_s"}) {
    const bool total = rate == "total_tokens_per_s";
    for (const double factor : {1.1, 2.0, 3.0}) {
      const double wanted = factor * parent.at(rate);
      const Problem problem =
          given.problem({rate + " >= " + std::to_string(factor) + "x"}, setting);
      const Budget& budget = budget_on(problem, total ? "total_s" : "generation_s");
      EXPECT_NEAR(*budget.at_most, 2 * (total ? 24 + 9 : 9 - 1) / wanted, 1e-12);
      EXPECT_FALSE(budget.at_least);
      std::mt19937 random(7);
      int met = 0;
      for (int i = 0; i < 300; ++i) {
        Problem free_of_covers = problem;
        free_of_covers.covers.clear();
        const Assignment assignment = random_assignment(problem, random);
        const double reached = model_costs(chosen_blocks(problem, assignment), setting).at(rate);
        if (std::abs(reached / wanted - 1.0) > 1e-9) {
          EXPECT_EQ(is_feasible(free_of_covers, assignment), reached > wanted);
        }
        met += reached > wanted ? 1 : 0;
      }
      EXPECT_GT(met, 0);
      Problem parents_own = problem;
      parents_own.covers.clear();
      ASSERT_EQ(chosen_blocks(problem, {0, 0, 0}), given.spec.layers);
      EXPECT_FALSE(is_feasible(parents_own, {0, 0, 0}));
    }
  }
}

TEST(SearchProblem, RefusesBudgetsThatMeanNothing) {
  const ProblemCase given;
  CostSetting setting = given.setting();
  EXPECT_PUZZLE_ERROR((void)given.problem({"latency <= 5"}, setting), ErrorKind::kUsage,
                      "no cost latency; known here: generation_s");
  EXPECT_PUZZLE_ERROR((void)given.problem({"total_tokens_per_s <= 5"}, setting), ErrorKind::kUsage,
                      "write >=");
  EXPECT_PUZZLE_ERROR((void)given.problem({"total_tokens_per_s >= 0"}, setting), ErrorKind::kUsage,
                      "bounds nothing");
  setting.workload.generated_tokens = 1;  // comes out of prefill: there is no rate
  EXPECT_PUZZLE_ERROR((void)given.problem({"generation_tokens_per_s >= 1.5x"}, setting),
                      ErrorKind::kUsage, "bounds nothing");
  setting.times = nullptr;
  EXPECT_PUZZLE_ERROR((void)given.problem({"generation_s <= 0.5x"}, setting), ErrorKind::kUsage,
                      "puzzle measure");
  EXPECT_EQ(given.problem({}, setting).cost_names.size(), 4U);
}

}  // namespace
}  // namespace puzzle
