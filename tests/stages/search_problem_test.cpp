#include "puzzle/stages/search_problem.h"

#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/mip/baselines.h"
#include "stages/search_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

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
    return make_problem(space, &scores, resolve_budgets(parse_budgets(texts), with), with);
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

// Linear sub-blocks are no choice there, and a layer without attention costs a head.
TEST(SearchProblem, OpenElmOffersWhatItHoldsAtItsCosts) {
  ProblemCase given;
  given.spec.qk_norm = given.spec.tie_embeddings = true;
  const CostSetting setting = given.setting(ExportTarget::kOpenElm);
  const Problem problem = given.problem({}, setting);
  ASSERT_EQ(problem.covers.size(), 1U);
  std::mt19937 random(5);
  for (const auto& choices : problem.layers) {
    EXPECT_GT(choices.size(), 3U);
    for (const Choice& choice : choices) {
      EXPECT_EQ(choice.name.find("linear"), std::string::npos) << choice.name;
    }
  }
  for (int i = 0; i < 100; ++i) {
    const Assignment assignment = random_assignment(problem, random);
    const Architecture layers = chosen_blocks(problem, assignment);
    const ModelSpec child = with_layers(given.spec, layers);
    if (refusal(ExportTarget::kOpenElm, child)) {
      continue;  // no attention, which the cover excludes
    }
    const PartCost cost = model_cost(child, ExportTarget::kOpenElm, setting.types);
    const Evaluation sums = evaluate(problem, assignment);
    for (std::size_t c = 0; c < problem.cost_names.size(); ++c) {
      if (problem.cost_names[c] == "weight_bytes") {
        EXPECT_EQ(sums.costs[c], static_cast<double>(cost.weight_bytes));
      } else if (problem.cost_names[c] == "kv_bytes_per_token") {
        EXPECT_EQ(sums.costs[c], static_cast<double>(cost.kv_bytes_per_token));
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
  const Problem problem = given.problem(
      {"parameters <= 0.7x", "weight_bytes <= 100KiB", "weight_bytes <= 99KiB"}, setting);
  ASSERT_EQ(problem.budgets.size(), 2U);
  EXPECT_DOUBLE_EQ(*budget_on(problem, "parameters").at_most, 0.7 * parent.at("parameters"));
  EXPECT_DOUBLE_EQ(*budget_on(problem, "weight_bytes").at_most, 99.0 * 1024);
}

TEST(SearchProblem, WithoutScoresOnlyTheBudgetsCount) {
  const ProblemCase given;
  CostSetting setting = given.setting();
  setting.times = nullptr;
  const Problem scored = given.problem({"parameters <= 0.7x"}, setting);
  const Problem free =
      make_problem(given.space, nullptr,
                   resolve_budgets(parse_budgets({"parameters <= 0.7x"}), setting), setting);
  ASSERT_EQ(free.layers.size(), scored.layers.size());
  for (std::size_t i = 0; i < free.layers.size(); ++i) {
    ASSERT_EQ(free.layers[i].size(), scored.layers[i].size());
    for (std::size_t c = 0; c < free.layers[i].size(); ++c) {
      EXPECT_EQ(free.layers[i][c].score, 0.0);
      EXPECT_EQ(free.layers[i][c].costs, scored.layers[i][c].costs);
    }
  }
}

// Every pair of the space's variants in all layers, by trying them; in deci the first layer cannot
// be left out and one layer needs attention with KV heads.
TEST(SearchProblem, UniformTriesEveryPairOfVariants) {
  const ProblemCase given;
  for (const ExportTarget target : {ExportTarget::kNative, ExportTarget::kDeci}) {
    for (const char* bound : {"0.99x", "0.8x", "0.65x", "0.5x", "0.3x", "0.2x"}) {
      const CostSetting setting = given.setting(target);
      const std::string budget = std::string("generation_s <= ") + bound;
      const double limit = resolve_budget(parse_budget(budget), setting).at_most;
      std::vector<double> feasible;
      for (const AttentionSpec& attention : given.space.layers[0].attention) {
        for (const FfnSpec& ffn : given.space.layers[0].ffn) {
          const Architecture layers(3, BlockSpec{attention, ffn});
          double score = 0.0;
          for (std::int64_t layer = 0; layer < 3; ++layer) {
            score += given.scores.block(layer, layers[0]).value;
          }
          const bool is_legal =
              target == ExportTarget::kNative || attention.kind == AttentionKind::kGqa;
          if (is_legal && model_costs(layers, setting).at("generation_s") <= limit) {
            feasible.push_back(score);
          }
        }
      }
      std::ranges::sort(feasible);
      Problem problem = given.problem({budget}, setting);
      problem.num_solutions = 1000;
      const std::vector<Solution> uniform = solve_uniform(problem);
      ASSERT_EQ(uniform.size(), feasible.size()) << bound;
      for (std::size_t i = 0; i < uniform.size(); ++i) {
        EXPECT_NEAR(uniform[i].objective, feasible[i], 1e-12) << bound;
      }
      problem.num_solutions = 3;
      EXPECT_EQ(solve_uniform(problem).size(), std::min<std::size_t>(3, feasible.size()));
    }
  }
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
  setting.workload.generated_tokens = 1;  // comes out of prefill: there is no rate
  EXPECT_PUZZLE_ERROR((void)given.problem({"generation_tokens_per_s >= 1.5x"}, setting),
                      ErrorKind::kUsage, "one token is generated only");
  setting.times = nullptr;
  EXPECT_PUZZLE_ERROR((void)given.problem({"generation_s <= 0.5x"}, setting), ErrorKind::kUsage,
                      "puzzle measure");
  EXPECT_EQ(given.problem({}, setting).cost_names.size(), 4U);
}

}  // namespace
}  // namespace puzzle
