#include "puzzle/stages/search.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/stages/search_problem.h"
#include "stages/search_run.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

struct SearchRun : test::SearchCase {
  SearchRun()
      : parent{"tiny", "tiny-key", random_model(spec, 7), Geometry(spec),
               std::make_shared<test::ToyTokenizer>()},
        db(folder / "run.db"),
        context{folder.path(), db, communicator},
        times(costs, "test") {
    set_progress_enabled(false);
    db.put(rows);
    options.types = "f32";
    options.rounds = options.local_forwards = 0;  // there is no library to make children of
    scenario = {.prompt_tokens = 24, .generated_tokens = 9, .batch = {1}};
  }
  SearchResult run() { return search(context, parent, space, scenario, costs, options); }
  [[nodiscard]] CostSetting setting(std::int64_t batch = 1) const {
    return {.parent = &spec,
            .target = parse_export_target(options.target),
            .types = {},
            .times = &times,
            .workload = {batch, scenario.prompt_tokens, scenario.generated_tokens}};
  }
  [[nodiscard]] double score_of(const Architecture& layers) const {
    const ScoreTable table(rows, spec, "kl");
    double sum = 0.0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      sum += table.block(static_cast<std::int64_t>(i), layers[i]).value;
    }
    return sum;
  }
  // Lowest sum of scores of any architecture for which `allowed` says yes, by trying all of them.
  template <class Allowed>
  [[nodiscard]] double lowest_score(const Allowed& allowed) const {
    std::vector<BlockSpec> blocks;
    for (const AttentionSpec& attention : space.layers[0].attention) {
      for (const FfnSpec& ffn : space.layers[0].ffn) {
        blocks.push_back({attention, ffn});
      }
    }
    double lowest = std::numeric_limits<double>::infinity();
    for (const BlockSpec& a : blocks) {
      for (const BlockSpec& b : blocks) {
        for (const BlockSpec& c : blocks) {
          const Architecture layers = {a, b, c};
          if (score_of(layers) < lowest && allowed(layers)) {
            lowest = score_of(layers);
          }
        }
      }
    }
    return lowest;
  }

  test::TempDir folder;
  LoadedModel parent;
  RunDb db;
  SingleCommunicator communicator;
  RunContext context;
  CostModel times;
  Scenario scenario;
  SearchOptions options;
};

bool is_deci(const Architecture& layers) {
  return layers[0] != parse_block("none/none") &&
         std::any_of(layers.begin(), layers.end(), [](const BlockSpec& block) {
           return block.attention.kind == AttentionKind::kGqa;
         });
}

TEST(Search, FindsTheBestArchitectureOfAll) {
  SearchRun run;
  run.options.budgets = {"parameters <= 0.7x", "generation_tokens_per_s >= 1.4x"};
  const SearchResult result = run.run();
  ASSERT_EQ(result.found.size(), 1U);
  const FoundArchitecture& child = *result.find("child");
  const auto parent = model_costs(run.spec.layers, run.setting());
  const double best = run.lowest_score([&](const Architecture& layers) {
    const auto costs = model_costs(layers, run.setting());
    return is_deci(layers) && costs.at("parameters") <= 0.7 * parent.at("parameters") &&
           costs.at("generation_tokens_per_s") >= 1.4 * parent.at("generation_tokens_per_s");
  });
  EXPECT_GT(best, 0.0);
  EXPECT_NEAR(child.objective, best, 1e-9);
  EXPECT_NEAR(child.objective, run.score_of(child.layers), 1e-9);
  EXPECT_EQ(child.costs, model_costs(child.layers, run.setting()));
  EXPECT_EQ(child.method, "mip");
  EXPECT_EQ(child.batch, 1);
  EXPECT_EQ(result.find("sweep-1x"), nullptr);
}

TEST(Search, IsRecordedAndTheSameAgain) {
  SearchRun run;
  const SearchResult first = run.run();
  const SearchResult second = run.run();
  EXPECT_EQ(first.key, second.key);
  const std::vector<ArchitectureRow> rows = run.db.architectures();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].name, "child");
  EXPECT_EQ(rows[0].method, "mip");
  EXPECT_EQ(rows[0].budget, "parameters <= 0.7x");
  ASSERT_EQ(rows[0].blocks.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rows[0].blocks[i], first.found[0].layers[i].name());
    EXPECT_EQ(first.found[0].layers[i], second.found[0].layers[i]);
  }
  const Json costs = parse_json(rows[0].costs_json, "costs");
  EXPECT_EQ(costs.at("parameters").get<double>(), first.found[0].costs.at("parameters"));
  EXPECT_TRUE(run.db.has_stage(first.key));
  // Other scores give another answer under another key, and the old rows are no longer current.
  for (ScoreRow& row : run.rows) {
    row.value = 2.0 - row.value;
  }
  run.db.put(run.rows);
  EXPECT_NE(run.run().key, first.key);
  EXPECT_EQ(run.db.architectures().size(), 1U);
  EXPECT_EQ(run.db.architectures(RowSet::kAll).size(), 2U);
}

// Rows that no search would give show where the second answer came from.
TEST(Search, IsReadBackAndNotSolvedAgain) {
  SearchRun run;
  run.options.baselines = {"uniform", "greedy"};
  run.options.sweep = "generation_tokens_per_s";
  run.options.sweep_values = {"1.2x", "1.5x"};
  const SearchResult first = run.run();
  std::vector<ArchitectureRow> rows = run.db.architectures_of(first.key);
  ASSERT_EQ(rows.size(), first.found.size());
  for (ArchitectureRow& row : rows) {
    if (row.name == "child") {
      row.objective = 12.5;
      row.gap = 0.25;
    }
  }
  run.db.put(rows);
  run.options.budgets = {"parameters <= 0.8x"};
  (void)run.run();  // another one becomes current
  run.options.budgets = {"parameters <= 0.7x"};
  const SearchResult again = run.run();
  ASSERT_EQ(again.found.size(), first.found.size());
  EXPECT_EQ(again.key, first.key);
  for (std::size_t i = 0; i < first.found.size(); ++i) {
    const FoundArchitecture& found = again.found[i];
    const FoundArchitecture& expected = first.found[i];
    EXPECT_EQ(found.name, expected.name);
    EXPECT_EQ(found.method, expected.method);
    EXPECT_EQ(found.layers, expected.layers);
    EXPECT_EQ(found.batch, expected.batch);
    EXPECT_EQ(found.costs, expected.costs);
    EXPECT_EQ(found.budget, expected.budget);
    EXPECT_EQ(found.swept_cost, expected.swept_cost);
    EXPECT_EQ(found.curve, expected.curve);
    EXPECT_EQ(found.objective, i == 0 ? 12.5 : expected.objective);
    EXPECT_EQ(found.gap, i == 0 ? 0.25 : expected.gap);
  }
  EXPECT_EQ(run.db.architectures().size(), first.found.size());
}

TEST(Search, AnotherSpaceIsAnotherSearch) {
  SearchRun run;
  const std::string key = run.run().key;
  for (LayerSpace& layer : run.space.layers) {
    std::erase(layer.ffn, FfnSpec{FfnKind::kNone});
  }
  EXPECT_NE(run.run().key, key);
}

TEST(Search, SolutionsAreNamedInOrderAndDiffer) {
  SearchRun run;
  run.options.solutions = 3;
  run.options.max_shared_fraction = 0.5;
  const SearchResult result = run.run();
  ASSERT_EQ(result.found.size(), 3U);
  EXPECT_EQ(result.found[0].name, "child");
  EXPECT_EQ(result.found[1].name, "child-2");
  EXPECT_EQ(result.found[2].name, "child-3");
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_LE(result.found[j].objective, result.found[i].objective + 1e-9);
      int shared = 0;
      for (std::size_t layer = 0; layer < 3; ++layer) {
        shared += result.found[i].layers[layer] == result.found[j].layers[layer] ? 1 : 0;
      }
      EXPECT_LE(shared, 1);
    }
  }
}

TEST(Search, BaselinesMeetTheBudgetsAndAreNoBetter) {
  SearchRun run;
  run.options.baselines = {"greedy",     "max-parameters", "uniform",
                           "depth-only", "no-op-only",     "random"};
  run.options.depth = "one-shot";  // all by the same scores
  run.options.budgets = {"parameters <= 0.75x"};
  const SearchResult result = run.run();
  const double bound = 0.75 * model_costs(run.spec.layers, run.setting()).at("parameters");
  std::set<std::string> names;
  for (const FoundArchitecture& found : result.found) {
    names.insert(found.name);
    EXPECT_EQ(found.method, found.name == "child" ? "mip" : found.name);
    EXPECT_LE(found.costs.at("parameters"), bound) << found.name;
    EXPECT_GE(found.objective, result.found[0].objective - 1e-9) << found.name;
    EXPECT_NEAR(found.objective, run.score_of(found.layers), 1e-9) << found.name;
  }
  EXPECT_EQ(names, (std::set<std::string>{"child", "greedy", "max-parameters", "uniform",
                                          "depth-only", "no-op-only", "random"}));
  for (const BlockSpec& block : result.find("depth-only")->layers) {
    EXPECT_TRUE(block.name() == "kv4/w96" || block.name() == "none/none") << block.name();
  }
  for (const BlockSpec& block : result.find("no-op-only")->layers) {
    EXPECT_TRUE(block.attention.name() == "kv4" || block.attention.name() == "none");
    EXPECT_TRUE(block.ffn.name() == "w96" || block.ffn.name() == "none");
  }
  for (const FoundArchitecture& other : result.found) {
    EXPECT_LE(other.costs.at("parameters"), result.find("max-parameters")->costs.at("parameters"));
  }
  EXPECT_EQ(run.db.architectures().size(), 7U);
}

// The curve replaces the bound on what is swept and keeps the others.
TEST(Search, SweepsACost) {
  SearchRun run;
  run.options.budgets = {"parameters <= 0.75x", "generation_tokens_per_s >= 3x"};
  run.options.sweep = "generation_s";
  run.options.sweep_values = {"0.9x", "0.5x", "0.0001x"};
  const SearchResult result = run.run();
  EXPECT_EQ(result.found.size(), 3U);
  EXPECT_EQ(result.find("sweep-0.0001x"), nullptr);  // out of reach: logged and left out
  const auto parent = model_costs(run.spec.layers, run.setting());
  double before = -1.0;
  for (const auto& [name, factor] : {std::pair("sweep-0.9x", 0.9), std::pair("sweep-0.5x", 0.5)}) {
    const FoundArchitecture* point = result.find(name);
    ASSERT_NE(point, nullptr);
    EXPECT_LE(point->costs.at("generation_s"), factor * parent.at("generation_s") * (1 + 1e-12));
    EXPECT_NEAR(point->objective, run.lowest_score([&](const Architecture& layers) {
      const auto costs = model_costs(layers, run.setting());
      return is_deci(layers) && costs.at("generation_s") <= factor * parent.at("generation_s") &&
             costs.at("parameters") <= 0.75 * parent.at("parameters");
    }),
                1e-9);
    EXPECT_GE(point->objective, before);
    before = point->objective;
  }
  int swept = 0;
  for (const ArchitectureRow& row : run.db.architectures()) {
    const Json detail = parse_json(row.detail_json, "detail");
    if (row.name.starts_with("sweep-")) {
      ++swept;
      EXPECT_EQ(detail.at("swept_cost"), "generation_s");
      EXPECT_EQ(detail.at("curve"), "search at bounds on generation_s, with parameters <= 0.75x");
      EXPECT_EQ(row.budget, "generation_s <= " + row.name.substr(6) + ", parameters <= 0.75x");
    } else {
      EXPECT_FALSE(detail.contains("swept_cost"));
      EXPECT_EQ(row.budget, "parameters <= 0.75x, generation_tokens_per_s >= 3x");
    }
  }
  EXPECT_EQ(swept, 2);
}

TEST(Search, SweepsAThroughputFromBelow) {
  SearchRun run;
  run.options.budgets = {"parameters <= 0.9x"};
  run.options.sweep = "generation_tokens_per_s";
  run.options.sweep_values = {"1.25x", "2x"};
  const SearchResult result = run.run();
  const auto parent = model_costs(run.spec.layers, run.setting());
  for (const auto& [name, factor] : {std::pair("sweep-1.25x", 1.25), std::pair("sweep-2x", 2.0)}) {
    const FoundArchitecture* point = result.find(name);
    ASSERT_NE(point, nullptr);
    EXPECT_EQ(point->budget,
              "generation_tokens_per_s >= " + std::string(name).substr(6) + ", parameters <= 0.9x");
    EXPECT_NEAR(point->objective, run.lowest_score([&](const Architecture& layers) {
      const auto costs = model_costs(layers, run.setting());
      return is_deci(layers) && costs.at("parameters") <= 0.9 * parent.at("parameters") &&
             costs.at("generation_tokens_per_s") >=
                 factor * parent.at("generation_tokens_per_s") * (1.0 - 1e-12);
    }),
                1e-9);
  }
}

TEST(Search, TheBatchSizeWithTheBestScoreWins) {
  SearchRun run;
  const auto at = [&](std::int64_t batch, const std::string& cost) {
    return std::to_string(model_costs(run.spec.layers, run.setting(batch)).at(cost));
  };
  for (const bool ascending : {true, false}) {
    run.scenario.batch =
        ascending ? std::vector<std::int64_t>{1, 4} : std::vector<std::int64_t>{4, 1};
    // A throughput that four sequences reach with the parent's own blocks, and one does not.
    run.options.budgets = {"generation_tokens_per_s >= " + at(4, "generation_tokens_per_s"),
                           "memory_bytes <= 100MiB"};
    run.options.budgets[0] = "generation_tokens_per_s >= " +
                             std::to_string(0.999 * std::stod(at(4, "generation_tokens_per_s")));
    FoundArchitecture child = *run.run().find("child");
    EXPECT_EQ(child.batch, 4);
    EXPECT_EQ(child.layers, run.spec.layers);
    EXPECT_EQ(child.objective, 0.0);
    // Memory that one sequence of the parent fits into, and four do not.
    run.options.budgets = {"memory_bytes <= " + at(1, "memory_bytes")};
    child = *run.run().find("child");
    EXPECT_EQ(child.batch, 1);
    EXPECT_EQ(child.objective, 0.0);
  }
  const Json detail = parse_json(run.db.architectures()[0].detail_json, "detail");
  EXPECT_EQ(detail.at("batch"), 1);
}

TEST(Search, OutOfReachSaysWhichBudgetAndHowFar) {
  SearchRun run;
  run.options.budgets = {"parameters <= 0.01x", "total_s <= 0.9x"};
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kInfeasible, "parameters <= 0.01x");
  run.options.budgets = {"generation_tokens_per_s >= 1000x"};
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kInfeasible, "generation_tokens_per_s >= 1000x");
  run.scenario.batch = {1, 4};
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kInfeasible, "batch 1: generation_tokens_per_s");
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kInfeasible, "batch 4: generation_tokens_per_s");
  EXPECT_TRUE(run.db.architectures(RowSet::kAll).empty());
}

TEST(Search, TimeThatRunsOutIsNoProofThatNothingFits) {
  SearchRun run;
  run.options.time_limit_s = 1e-9;
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kNumeric, "raise search.time_limit_s");
  run.options.method = "greedy";  // a rule needs no time; baselines that do are left out
  run.options.baselines = {"mip", "uniform"};
  const SearchResult result = run.run();
  EXPECT_NE(result.find("child"), nullptr);
  EXPECT_EQ(result.find("mip"), nullptr);
  EXPECT_NE(result.find("uniform"), nullptr);
}

TEST(Search, TheCostsOfTheTargetCount) {
  SearchRun run;
  run.options.budgets = {"weight_bytes <= 0.6x"};
  for (const std::string target : {"native", "deci", "nemotron-nas"}) {
    run.options.target = target;
    const FoundArchitecture child = *run.run().find("child");
    const auto parent = model_costs(run.spec.layers, run.setting());
    const double best = run.lowest_score([&](const Architecture& layers) {
      if (target == "deci" && !is_deci(layers)) {
        return false;
      }
      return model_costs(layers, run.setting()).at("weight_bytes") <=
             0.6 * parent.at("weight_bytes");
    });
    EXPECT_NEAR(child.objective, best, 1e-9) << target;
  }
}

TEST(Search, EveryRankLearnsTheAnswerOrTheError) {
  SearchRun run;
  const SearchResult alone = run.run();
  RunDb second(run.folder / "rank1.db");
  std::vector<SearchResult> results(2);
  const auto on_two_ranks = [&] {
    test::ThreadGroup::run(2, [&](Communicator& communicator) {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      RunContext context{run.folder.path(), rank == 0 ? run.db : second, communicator};
      results[rank] = search(context, run.parent, run.space, run.scenario, run.costs, run.options);
    });
  };
  on_two_ranks();
  for (const SearchResult& result : results) {
    EXPECT_EQ(result.key, alone.key);
    ASSERT_EQ(result.found.size(), 1U);
    EXPECT_EQ(result.found[0].layers, alone.found[0].layers);
    EXPECT_EQ(result.found[0].objective, alone.found[0].objective);
    EXPECT_EQ(result.found[0].costs, alone.found[0].costs);
  }
  EXPECT_TRUE(second.architectures(RowSet::kAll).empty());
  run.options.budgets = {"parameters <= 0.01x"};
  EXPECT_PUZZLE_ERROR(on_two_ranks(), ErrorKind::kInfeasible, "parameters");
}

TEST(Search, RefusesBrokenOptions) {
  SearchRun run;
  run.options.budgets = {"parameters < 5"};
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kUsage, "parameters < 5");
  run.options.budgets = {"parameters <= 0.7x"};
  run.options.metric = "top1";  // no such rows
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kUsage, "no top1 score");
  run.options.metric = "kl";
  run.options.types = "q9_9";
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kUsage, "q9_9");
}

}  // namespace
}  // namespace puzzle
