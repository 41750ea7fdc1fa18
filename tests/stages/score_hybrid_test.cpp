#include "puzzle/stages/score_hybrid.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/stages/score.h"
#include "puzzle/stages/score_estimates.h"
#include "puzzle/stages/score_exact.h"
#include "puzzle/stages/score_gradient.h"
#include "stages/scored_run.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

struct HybridRun : test::ScoredRun {
  HybridRun() {
    options.method = "hybrid";
    options.exact_above = 1e9;
    options.exact_every = 0;
    options.exact_share = 100.0;
  }
  ScoreResult run(RunContext& where) const {
    return score(where, parent, {library.folder, library.key}, space, *validation, options);
  }
  std::int64_t choose(RunContext& where, const std::vector<Architecture>& chosen) const {
    return score_chosen(where, parent, {library.folder, library.key}, space, *validation, options,
                        chosen);
  }
  // "layer:block" of the current exact scores.
  [[nodiscard]] static std::set<std::string> exact(const RunDb& db) {
    std::set<std::string> names;
    for (const ScoreRow& row : db.scores()) {
      if (row.method == "replace-one") {
        names.insert(std::to_string(row.layer) + ":" + row.block);
      }
    }
    return names;
  }
  [[nodiscard]] std::int64_t num_exact() const { return std::ssize(exact(db)); }
  [[nodiscard]] Architecture child(const std::string& middle) const {
    Architecture layers = parent.weights.spec.layers;
    layers[1] = parse_block(middle);
    return layers;
  }

  ScoreOptions options;
};

TEST(ScoreHybrid, FirstAndLastLayersAreScoredExactly) {
  HybridRun run;
  (void)run.run(run.context);
  const std::set<std::string> exact = HybridRun::exact(run.db);
  EXPECT_EQ(exact.size(), 16U);
  for (const std::string& name : exact) {
    EXPECT_NE(name[0], '1') << name;
  }
}

TEST(ScoreHybrid, SoIsWhatIsEstimatedAboveTheBound) {
  HybridRun run;
  (void)run.run(run.context);
  std::vector<double> middle;
  for (const ScoreRow& row : run.db.scores()) {
    const BlockSpec block = parse_block(row.block);
    const BlockSpec& own = run.parent.weights.spec.layers[1];
    if (row.layer == 1 && row.method == "gradient" && row.metric == "kl" &&
        (block.attention == own.attention || block.ffn == own.ffn)) {
      middle.push_back(row.value);
    }
  }
  ASSERT_EQ(middle.size(), 8U);
  std::sort(middle.begin(), middle.end());
  run.options.exact_above = (middle[4] + middle[5]) / 2.0;
  (void)run.run(run.context);
  EXPECT_EQ(run.num_exact(), 16 + 3);
}

TEST(ScoreHybrid, SoIsWhatChangesGiantTokens) {
  HybridRun run;
  const LayerCandidates candidates =
      all_candidates(run.parent, {run.library.folder, run.library.key}, run.space, "", "", {});
  std::vector<ScoreRow> estimates;
  for (const auto& layer : candidates) {
    for (const Candidate& candidate : layer) {
      const std::string block = candidate.block.name();
      const auto add = [&](const char* metric, double value) {
        estimates.push_back({.layer = candidate.layer,
                             .block = block,
                             .method = "gradient",
                             .metric = metric,
                             .value = value});
      };
      add("kl", block == "kv4/w32" ? 2.0 : 0.01);
      add("giant_change", block == "kv4/none" ? 0.6 : 0.4);
    }
  }
  run.options.exact_above = 1.0;
  const ModelSpec& spec = run.parent.weights.spec;
  const auto doubtful = doubtful_candidates(candidates, estimates, spec, run.options);
  ASSERT_EQ(doubtful.size(), 16U + 2U);
  EXPECT_EQ(doubtful[16].block.name(), "kv4/none");
  EXPECT_EQ(doubtful[17].block.name(), "kv4/w32");
  run.options.exact_giants = 0.3;
  EXPECT_EQ(doubtful_candidates(candidates, estimates, spec, run.options).size(), 24U);
}

TEST(ScoreHybrid, SoIsTheMedianOfEachKindInEveryFewLayers) {
  HybridRun run;
  run.options.exact_every = 1;
  (void)run.run(run.context);
  std::map<double, std::string> attention, ffn;
  for (const ScoreRow& row : run.db.scores()) {
    if (row.layer == 1 && row.method == "gradient" && row.metric == "kl") {
      const BlockSpec block = parse_block(row.block);
      const BlockSpec& own = run.parent.weights.spec.layers[1];
      if (block.ffn == own.ffn) {
        attention[row.value] = row.block;
      } else if (block.attention == own.attention) {
        ffn[row.value] = row.block;
      }
    }
  }
  ASSERT_EQ(attention.size(), 4U);
  ASSERT_EQ(ffn.size(), 4U);
  const std::set<std::string> exact = HybridRun::exact(run.db);
  EXPECT_EQ(exact.size(), 16U + 2U);
  EXPECT_TRUE(exact.contains("1:" + std::next(attention.begin(), 2)->second));
  EXPECT_TRUE(exact.contains("1:" + std::next(ffn.begin(), 2)->second));
  HybridRun other;
  other.options.exact_every = 2;  // the first and the last layer have theirs
  (void)other.run(other.context);
  EXPECT_EQ(other.num_exact(), 16);
}

TEST(ScoreHybrid, TheBudgetIsKept) {
  HybridRun run;
  const ModelSpec& spec = run.parent.weights.spec;
  const CandidateWork work(spec, 16);
  const std::int64_t estimates = gradient_passes(spec, 16, run.options.samples, 24);
  // Room for two candidates of the first layer, and for none.
  const auto share = [&](std::int64_t passes) {
    return (static_cast<double>(passes) + 0.5) / static_cast<double>(24 * work.whole_model());
  };
  run.options.exact_share = share(estimates + 2 * work.whole_model());
  (void)run.run(run.context);
  EXPECT_EQ(run.num_exact(), 2);
  run.options.exact_share = share(estimates - 1);
  (void)run.run(run.context);
  EXPECT_EQ(run.num_exact(), 0);
}

TEST(ScoreHybrid, WhatIsChosenIsScoredUntilTheChoiceStands) {
  HybridRun run;
  (void)run.run(run.context);
  EXPECT_EQ(run.choose(run.context, {run.child("kv1/w32")}), 2);
  EXPECT_EQ(run.num_exact(), 18);
  EXPECT_EQ(run.choose(run.context, {run.child("kv1/w32"), run.child("kv4/w96")}), 0);
  EXPECT_EQ(run.choose(run.context, {run.child("kv1/w64"), run.child("none/w96")}), 2);
  const std::set<std::string> exact = HybridRun::exact(run.db);
  for (const std::string name : {"1:kv1/w96", "1:kv4/w32", "1:kv4/w64", "1:none/w96"}) {
    EXPECT_TRUE(exact.contains(name)) << name;
  }
  // A second run makes the same choices from what is there.
  EXPECT_EQ(run.run(run.context).num_scored_now, 0);
  EXPECT_EQ(run.num_exact(), 16);
  EXPECT_EQ(run.choose(run.context, {run.child("kv1/w32")}), 2);
}

TEST(ScoreHybrid, ExactScoresAreThoseOfReplaceOne) {
  HybridRun run;
  (void)run.run(run.context);
  RunDb db(run.folder / "exact.db");
  RunContext context{run.folder.path(), db, run.communicator};
  run.options.method = "replace-one";
  (void)run.run(context);
  std::int64_t compared = 0;
  for (const ScoreRow& exact : db.scores()) {
    for (const ScoreRow& row : run.db.scores()) {
      if (row.key == exact.key && row.metric == exact.metric) {
        EXPECT_EQ(row.value, exact.value);
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 3 * 16);
}

TEST(ScoreHybrid, RanksScoreTheSame) {
  HybridRun run;
  (void)run.run(run.context);
  (void)run.choose(run.context, {run.child("kv1/w32")});
  std::vector<std::unique_ptr<RunDb>> dbs;
  for (int rank = 0; rank < 2; ++rank) {
    dbs.push_back(std::make_unique<RunDb>(run.folder / ("rank" + std::to_string(rank) + ".db")));
  }
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext rank{run.folder.path(), *dbs[static_cast<std::size_t>(communicator.rank())],
                    communicator};
    (void)run.run(rank);
    EXPECT_EQ(run.choose(rank, {run.child("kv1/w32")}), 2);
  });
  EXPECT_EQ(HybridRun::exact(*dbs[0]), HybridRun::exact(run.db));
  EXPECT_TRUE(dbs[1]->scores(RowSet::kAll).empty());
}

SecondOrderEstimates estimates(double sequence, double sequence_error, double token,
                               double token_error) {
  return {{sequence, sequence_error}, {token, token_error}};
}

TEST(CombineEstimates, TheMoreCertainCountsMore) {
  // The same factor of 2 throughout, so per-token values are exact but for that factor.
  const std::vector<ScoreValue> combined =
      combine_estimates({estimates(2.0, 1.0, 1.0, 0.01), estimates(0.2, 0.1, 0.1, 0.001),
                         estimates(4.0, 2.0, 2.0, 0.02)});
  EXPECT_NEAR(combined[0].value, 2.0, 1e-6);
  EXPECT_NEAR(combined[1].value, 0.2, 1e-7);
  // A noisy outlier of the one is pulled to the other, whose common factor stays.
  const std::vector<ScoreValue> outlier =
      combine_estimates({estimates(2.0, 0.8, 1.0, 0.01), estimates(0.2, 0.08, 0.1, 0.001),
                         estimates(8.0, 3.2, 2.0, 0.02), estimates(1.0, 0.4, 1.0, 0.01)});
  EXPECT_LT(outlier[2].value, 6.0);
  EXPECT_GT(outlier[2].value, 4.0);
  EXPECT_GT(outlier[3].value, 1.5);
  EXPECT_LT(outlier[3].value, 2.05);
  EXPECT_GT(outlier[2].standard_error, 0.0);
}

TEST(CombineEstimates, ScattersOfTheFactorMakeTheSequencesCount) {
  // Certain sequences, and a factor that differs widely between candidates.
  const std::vector<ScoreValue> combined =
      combine_estimates({estimates(2.0, 0.02, 1.0, 0.01), estimates(1.0, 0.01, 2.0, 0.02),
                         estimates(6.0, 0.06, 1.0, 0.01), estimates(0.5, 0.005, 3.0, 0.03)});
  EXPECT_NEAR(combined[0].value, 2.0, 0.02);
  EXPECT_NEAR(combined[3].value, 0.5, 0.01);
}

TEST(CombineEstimates, ZeroTakesTheOther) {
  const std::vector<ScoreValue> combined =
      combine_estimates({estimates(0.0, 0.0, 1.0, 0.1), estimates(2.0, 0.5, 0.0, 0.0)});
  EXPECT_EQ(combined[0].value, 1.0);
  EXPECT_EQ(combined[1].value, 2.0);
}

}  // namespace
}  // namespace puzzle
