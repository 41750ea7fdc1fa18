// Searches that measure whole children, against loops over children put together by hand.
#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/stages/search.h"
#include "stages/child_run.h"
#include "stages/measured_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

std::vector<Architecture> layers_of(const SearchResult& result) {
  std::vector<Architecture> layers;
  for (const FoundArchitecture& found : result.found) {
    layers.push_back(found.layers);
  }
  return layers;
}

void expect_same_found(const SearchResult& got, const SearchResult& want, double tolerance) {
  EXPECT_EQ(got.key, want.key);
  ASSERT_EQ(got.found.size(), want.found.size());
  for (std::size_t i = 0; i < want.found.size(); ++i) {
    const FoundArchitecture& a = got.found[i];
    const FoundArchitecture& b = want.found[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.method, b.method);
    EXPECT_EQ(a.layers, b.layers);
    ASSERT_EQ(a.measured.has_value(), b.measured.has_value());
    if (b.measured) {
      EXPECT_NEAR(a.measured->kl.value, b.measured->kl.value, tolerance);
      EXPECT_NEAR(a.measured->kl.standard_error, b.measured->kl.standard_error, tolerance);
      EXPECT_NEAR(a.measured->minus_child.value, b.measured->minus_child.value, tolerance);
      EXPECT_NEAR(a.measured->minus_child.standard_error, b.measured->minus_child.standard_error,
                  tolerance);
      EXPECT_EQ(a.measured->tokens, b.measured->tokens);
    }
  }
}

TEST(SearchMeasured, ValidateTakesTheBestByBruteForce) {
  test::MeasuredRun run;
  run.options.solutions = 5;
  const std::vector<Architecture> unmeasured = layers_of(run.run());
  ASSERT_EQ(unmeasured.size(), 5U);
  run.options.validate = 4;
  const SearchResult result = run.run();
  ASSERT_EQ(result.found.size(), 5U);
  std::map<double, Architecture> by_kl;
  for (std::size_t i = 0; i < 4; ++i) {
    by_kl[run.naive_kl(unmeasured[i])] = unmeasured[i];
  }
  ASSERT_NE(by_kl.begin()->second, unmeasured[0]) << "scores and measurements agree: no test";
  std::size_t next = 0;
  for (const auto& [kl, layers] : by_kl) {
    const FoundArchitecture& found = result.found[next];
    EXPECT_EQ(found.name, next == 0 ? "child" : "child-" + std::to_string(next + 1));
    EXPECT_EQ(found.layers, layers);
    ASSERT_TRUE(found.measured);
    const auto [mean, error] = test::naive_ratio(
        run.windows_of(layers), [](const test::NaiveWindow& w) { return w.kl; }, 16.0);
    EXPECT_NEAR(found.measured->kl.value, mean, 1e-4);
    EXPECT_NEAR(found.measured->kl.standard_error, error, 1e-4);
    EXPECT_EQ(found.measured->tokens, run.validation->num_tokens());
    std::vector<test::NaiveWindow> differences = run.windows_of(layers);
    const std::vector<test::NaiveWindow> best = run.windows_of(by_kl.begin()->second);
    for (std::size_t w = 0; w < differences.size(); ++w) {
      differences[w].kl -= best[w].kl;
    }
    const auto [difference, paired] =
        test::naive_ratio(differences, [](const test::NaiveWindow& w) { return w.kl; }, 16.0);
    EXPECT_NEAR(found.measured->minus_child.value, difference, 1e-4);
    EXPECT_NEAR(found.measured->minus_child.standard_error, paired, 1e-4);
    ++next;
  }
  EXPECT_EQ(result.found[4].layers, unmeasured[4]);
  EXPECT_FALSE(result.found[4].measured);
}

TEST(SearchMeasured, RowsSayWhatWasMeasured) {
  test::MeasuredRun run;
  run.options.validate = 3;
  run.options.num_tokens = 64;
  const SearchResult result = run.run();
  const std::vector<ArchitectureRow> rows = run.db.architectures();
  ASSERT_EQ(rows.size(), 3U);
  for (const ArchitectureRow& row : rows) {
    const Json detail = parse_json(row.detail_json, "detail");
    const FoundMeasurement& measured = *result.find(row.name)->measured;
    EXPECT_EQ(detail.at("measured_kl"), measured.kl.value);
    EXPECT_EQ(detail.at("measured_kl_se"), measured.kl.standard_error);
    EXPECT_EQ(detail.at("measured_minus_child"), measured.minus_child.value);
    EXPECT_EQ(detail.at("measured_minus_child_se"), measured.minus_child.standard_error);
    EXPECT_EQ(detail.at("measured_tokens"), 64);
  }
  expect_same_found(run.run(), result, 0.0);  // read back
}

// Records of other numbers show where a second search takes its measurements from.
TEST(SearchMeasured, WhatWasMeasuredIsNotMeasuredAgain) {
  test::MeasuredRun run;
  run.options.validate = 3;
  const SearchResult first = run.run();
  std::int64_t measured = 0;
  for (StageRecord record : run.db.stages_of("search", RowSet::kAll)) {
    if (record.what == "measured KL") {
      ++measured;
      Json detail = parse_json(record.detail_json, "detail");
      for (Json& sum : detail.at("unit_sums")) {
        sum = sum.get<double>() + 7.0 * 16.0 * 8.0;
      }
      record.detail_json = detail.dump();
      run.db.put(record);
    }
  }
  EXPECT_EQ(measured, 3);
  run.options.sweep = "parameters";  // another search
  run.options.sweep_values = {"0.9x"};
  const SearchResult second = run.run();
  EXPECT_NE(second.key, first.key);
  EXPECT_GT(second.found[0].measured->kl.value, first.found[0].measured->kl.value + 6.0);
  EXPECT_EQ(std::ranges::count(run.db.stages_of("search", RowSet::kAll), "measured KL",
                               &StageRecord::what),
            3);
}

TEST(SearchMeasured, AnotherLibraryOrTextIsAnotherMeasurement) {
  test::MeasuredRun run;
  run.options.validate = 1;
  const double kl = run.run().found[0].measured->kl.value;
  run.options.num_tokens = 48;
  const double shorter = run.run().found[0].measured->kl.value;
  EXPECT_NE(shorter, kl);
  run.options.num_tokens = 4096;
  InitLibraryOptions paper;
  paper.init = "paper";
  run.library = run.make(paper);
  EXPECT_NE(run.run().found[0].measured->kl.value, kl);
}

// The order of drops, from scratch: every child anew, every budget by the whole model.
TEST(SearchMeasured, DepthIsTheNaiveGreedyOrder) {
  test::MeasuredRun run(6, true, /*with_library=*/false);
  run.options.method = "depth-only";
  run.options.target = "native";
  run.options.budgets = {"parameters <= 0.5x"};
  Architecture naive = run.own_layers();
  const double bound = 0.5 * run.parameters(naive);
  std::vector<std::size_t> order;
  while (run.parameters(naive) > bound) {
    double lowest = std::numeric_limits<double>::infinity();
    std::size_t best = 0;
    for (std::size_t layer = 0; layer < naive.size(); ++layer) {
      Architecture child = naive;
      child[layer] = parse_block("none/none");
      if (child != naive && run.naive_kl(child) < lowest) {
        lowest = run.naive_kl(child);
        best = layer;
      }
    }
    naive[best] = parse_block("none/none");
    order.push_back(best);
  }
  EXPECT_GE(order.size(), 2U);
  const SearchResult iterative = run.run();
  ASSERT_EQ(iterative.found.size(), 1U);
  EXPECT_EQ(iterative.found[0].layers, naive);
  EXPECT_EQ(iterative.found[0].method, "depth-only");
  run.options.depth = "one-shot";
  EXPECT_NE(run.run().found[0].layers, naive) << "scores and measurements agree: no test";
}

TEST(SearchMeasured, DepthAsABaselineKeepsLayerZeroForLlamaCpp) {
  test::MeasuredRun run;
  run.options.baselines = {"depth-only"};
  run.options.budgets = {"parameters <= 0.6x"};
  const SearchResult result = run.run();
  ASSERT_NE(result.find("depth-only"), nullptr);
  const FoundArchitecture& depth = *result.find("depth-only");
  EXPECT_EQ(depth.layers[0], run.own_layers()[0]);
  EXPECT_LE(depth.costs.at("parameters"), 0.6 * run.parameters(run.own_layers()));
  EXPECT_EQ(run.db.architectures().size(), 2U);
}

TEST(SearchMeasured, LocalSearchEndsWhereNoSwapHelps) {
  test::MeasuredRun run(2);
  run.options.local_forwards = 1000;
  run.options.target = "native";
  const SearchResult result = run.run();
  const FoundArchitecture& child = *result.find("child");
  const double bound = 0.7 * run.parameters(run.own_layers());
  std::vector<BlockSpec> blocks;
  for (const AttentionSpec& attention : run.space.layers[0].attention) {
    for (const FfnSpec& ffn : run.space.layers[0].ffn) {
      blocks.push_back({attention, ffn});
    }
  }
  // One layer at a time here: two are the whole model.
  const double kl = run.naive_kl(child.layers);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (const BlockSpec& block : blocks) {
      Architecture other = child.layers;
      other[layer] = block;
      if (run.parameters(other) <= bound) {
        EXPECT_GE(run.naive_kl(other), kl - 1e-5) << layer << " " << block.name();
      }
    }
  }
  EXPECT_EQ(child.method, "local");
  EXPECT_LE(run.parameters(child.layers), bound);
  ASSERT_EQ(result.found.size(), 2U);
  EXPECT_LT(child.measured->kl.value, result.found[1].measured->kl.value);
  EXPECT_NEAR(child.measured->kl.value, kl, 1e-4);
}

// In a space where the sum of scores would choose another one.
TEST(SearchMeasured, UniformTakesTheBestByBruteForce) {
  test::MeasuredRun run;
  run.options.method = "uniform";
  run.options.target = "native";
  const Architecture by_scores = run.run().found[0].layers;
  run.options.validate = 1000;
  const SearchResult result = run.run();
  std::map<double, Architecture> by_kl;
  for (const AttentionSpec& attention : run.space.layers[0].attention) {
    for (const FfnSpec& ffn : run.space.layers[0].ffn) {
      const Architecture layers(3, BlockSpec{attention, ffn});
      if (run.parameters(layers) <= 0.7 * run.parameters(run.own_layers())) {
        by_kl[run.naive_kl(layers)] = layers;
      }
    }
  }
  ASSERT_NE(by_kl.begin()->second, by_scores) << "scores and measurements agree: no test";
  EXPECT_EQ(result.found.size(), by_kl.size());
  EXPECT_EQ(result.found[0].layers, by_kl.begin()->second);
  EXPECT_NEAR(result.found[0].measured->kl.value, by_kl.begin()->first, 1e-4);
}

TEST(SearchMeasured, OtherMethodsAndMetricsDoNotGoOn) {
  test::MeasuredRun run;
  run.options.rounds = 2;
  run.options.local_forwards = 6;
  run.options.method = "greedy";
  ASSERT_EQ(run.run().found.size(), 1U);
  EXPECT_FALSE(run.run().found[0].measured);
  for (ScoreRow row : std::vector(run.scores)) {
    row.metric = "lm_loss";
    run.db.put(std::vector{row});
  }
  run.options.method = "mip";
  run.options.metric = "lm_loss";
  EXPECT_FALSE(run.run().found[0].measured);
}

void use_everything(test::MeasuredRun& run) {
  run.options.validate = 2;
  run.options.rounds = 2;
  run.options.local_forwards = 6;
  run.options.baselines = {"depth-only"};
}

TEST(SearchMeasured, EverythingTogetherIsNoWorseThanItsParts) {
  test::MeasuredRun run;
  run.options.validate = 2;
  const double validated = run.run().found[0].measured->kl.value;
  use_everything(run);
  const SearchResult result = run.run();
  EXPECT_LE(result.found[0].measured->kl.value, validated);
  double before = 0.0;
  for (const FoundArchitecture& found : result.found) {
    EXPECT_LE(found.costs.at("parameters"), 0.7 * run.parameters(run.own_layers()));
    if (found.measured) {
      EXPECT_GE(found.measured->kl.value, before);
      before = found.measured->kl.value;
    }
  }
  EXPECT_EQ(result.found[0].measured->minus_child.value, 0.0);
}

// With scores too small to overrule what is estimated around the child.
TEST(SearchMeasured, RoundsFindAChildOfTheirOwn) {
  test::MeasuredRun run;
  for (ScoreRow& row : run.scores) {
    row.value *= 0.2;
  }
  run.db.put(run.scores);
  run.options.rounds = 3;
  const SearchResult result = run.run();
  EXPECT_EQ(std::ranges::count(run.db.stages_of("search", RowSet::kAll), "changes around a child",
                               &StageRecord::what),
            2);
  ASSERT_EQ(result.found.size(), 2U);
  const FoundArchitecture& rounds =
      result.found[0].method == "rounds" ? result.found[0] : result.found[1];
  EXPECT_EQ(rounds.method, "rounds");
  EXPECT_LE(run.parameters(rounds.layers), 0.7 * run.parameters(run.own_layers()));
  EXPECT_EQ(rounds.budget, "parameters <= 0.7x");
  EXPECT_NEAR(rounds.measured->kl.value, run.naive_kl(rounds.layers), 1e-4);
  // Better than what made-up scores choose.
  EXPECT_EQ(result.found[0].method, "rounds");
}

TEST(SearchMeasured, RoundsReadTheTextAndDrawTheLabelsAskedFor) {
  test::MeasuredRun run;
  run.options.rounds = 2;
  const auto estimated = [&run] {
    (void)run.run();
    return std::ranges::count(run.db.stages_of("search", RowSet::kAll), "changes around a child",
                              &StageRecord::what);
  };
  const auto once = estimated();
  EXPECT_EQ(estimated(), once) << "the same text and labels are not read again";
  run.options.round_tokens = 16;
  const auto twice = estimated();
  EXPECT_GT(twice, once);
  run.options.round_samples = 1;
  EXPECT_GT(estimated(), twice);
}

TEST(SearchMeasured, AKilledSearchGoesOnWithTheSameBits) {
  test::MeasuredRun run;
  use_everything(run);
  const SearchResult whole = run.run();
  test::expect_resumed_after_kills(
      run, 5,
      [&](RunContext& context) {
        context.db.put(run.scores);
        return run.run(context);
      },
      [&](const SearchResult& result, const test::Elsewhere& /*where*/) {
        expect_same_found(result, whole, 0.0);
      });
}

TEST(SearchMeasured, RanksMeasureTogether) {
  test::MeasuredRun run;
  use_everything(run);
  const SearchResult alone = run.run();
  for (const int size : {2, 3}) {
    std::vector<std::unique_ptr<RunDb>> dbs;
    for (int rank = 0; rank < size; ++rank) {
      dbs.push_back(std::make_unique<RunDb>(
          run.folder / ("rank" + std::to_string(size) + std::to_string(rank) + ".db")));
    }
    dbs[0]->put(run.scores);
    std::vector<SearchResult> results(static_cast<std::size_t>(size));
    test::ThreadGroup::run(size, [&](Communicator& communicator) {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      RunContext context{run.folder.path(), *dbs[rank], communicator};
      results[rank] = run.run(context);
    });
    for (const SearchResult& result : results) {
      expect_same_found(result, alone, 1e-5);
    }
    EXPECT_TRUE(dbs[1]->stages(RowSet::kAll).empty());
  }
}

TEST(SearchMeasured, EveryRankLearnsOfAnErrorBetweenMeasurements) {
  test::MeasuredRun run;
  run.options.method = "depth-only";
  run.options.target = "native";
  run.options.budgets = {"parameters <= 0.0001x"};
  RunDb second(run.folder / "rank1.db");
  EXPECT_PUZZLE_ERROR(test::ThreadGroup::run(2,
                                             [&](Communicator& communicator) {
                                               RunContext context{
                                                   run.folder.path(),
                                                   communicator.rank() == 0 ? run.db : second,
                                                   communicator};
                                               (void)run.run(context);
                                             }),
                      ErrorKind::kInfeasible, "parameters <= 0.0001x");
}

TEST(SearchMeasured, RefusesWhatCannotBeMeasured) {
  test::MeasuredRun run;
  run.options.method = "greedy";
  run.options.validate = 2;
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kUsage, "search.validate is 2");
  run.options.method = "mip";
  run.validation = run.validation->first_tokens(0);
  run.options.validate = 1;
  EXPECT_PUZZLE_ERROR((void)run.run(), ErrorKind::kUsage, "data.validation_tokens");
}

}  // namespace
}  // namespace puzzle
