#include "puzzle/stages/measure.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/engine/cost_table_file.h"
#include "puzzle/results/facts.h"
#include "stages/stack_server.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

Scenario measured_scenario() {
  Scenario scenario;
  scenario.prompt_tokens = 8;
  scenario.generated_tokens = 8;
  return scenario;
}

struct MeasureRun : test::StackServerRun {
  MeasureRun() {
    options.engine = "llama-server";
    options.types = "f32";
    options.stack_layers = 4;
    options.steps = 4;
  }
  MeasureResult make() { return measure(context, parent, space, scenario, options, engine); }
  // Makes it and gives what its rows are recorded under.
  std::string make_key() {
    (void)make();
    return *context.db.current_keys(RunTable::kCosts, "measure").begin();
  }

  Scenario scenario = measured_scenario();
  MeasureOptions options;
};

// What the made-up server takes, by the names of rows.
std::map<std::string, double> true_seconds(const SearchSpace& space) {
  std::map<std::string, double> seconds = {{"fixed", test::kMadeUpFixedSeconds}};
  const DistinctSubblocks distinct = distinct_subblocks(space);
  for (const AttentionSpec& attention : distinct.attention) {
    if (attention.kind != AttentionKind::kNone) {
      seconds[subblock_name(attention)] = test::made_up_seconds(attention);
    }
  }
  for (const FfnSpec& ffn : distinct.ffn) {
    if (ffn.kind != FfnKind::kNone) {
      seconds[subblock_name(ffn)] = test::made_up_seconds(ffn);
    }
  }
  return seconds;
}

void expect_true_rows(const MeasureResult& result, const SearchSpace& space) {
  const auto truth = true_seconds(space);
  EXPECT_EQ(result.rows.size(), 4 * truth.size()) << "two contexts, two phases";
  for (const MeasuredCost& row : result.rows) {
    const double tokens = row.phase == Phase::kPrefill ? static_cast<double>(row.context) : 1.0;
    EXPECT_NEAR(row.seconds, tokens * truth.at(row.subblock), 1e-9 * tokens) << row.subblock;
    // Prompts of 8 and 16 tokens; a step stands for the middle of the four after them.
    const std::set<std::int64_t> contexts = row.phase == Phase::kPrefill
                                                ? std::set<std::int64_t>{8, 16}
                                                : std::set<std::int64_t>{10, 18};
    EXPECT_TRUE(contexts.contains(row.context)) << row.context;
  }
}

TEST(MeasureLlamaServer, FindsWhatEachSubblockTakes) {
  MeasureRun run;
  const MeasureResult result = run.make();
  expect_true_rows(result, run.space);
  EXPECT_THAT(result.doubts, testing::IsEmpty());
  EXPECT_LT(result.worst_residual, 1e-6);
  // Parent at two depths, 3 other attentions, 2 other widths, and one mixed; 1 + 3 passes, 2
  // points.
  EXPECT_EQ(run.num_requests(), 8 * 4 * 2);
  EXPECT_EQ(load_facts(run.db).llama_cpp, "llama-server 1 (fake)");
  EXPECT_TRUE(std::filesystem::is_empty(run.folder / "measure")) << "nothing is left over";
}

TEST(MeasureLlamaServer, WidthsBetweenTimedOnesAreInterpolated) {
  MeasureRun run;
  run.options.widths = 2;
  EXPECT_EQ(timed_subblocks(run.space, run.options).ffn.size() + 1,
            distinct_subblocks(run.space).ffn.size());
  const MeasureResult result = run.make();
  expect_true_rows(result, run.space);  // the made-up times are linear in the width
  for (const MeasuredCost& row : result.rows) {
    EXPECT_EQ(row.samples == 0, row.subblock == "ffn/w64") << row.subblock;
  }
}

TEST(MeasureLlamaServer, ADoneMeasurementIsNotMadeAgain) {
  MeasureRun run;
  const MeasureResult first = run.make();
  const std::string key = run.make_key();
  const std::int64_t requests = run.num_requests();
  run.engine.llama_server.request_timeout_s = 30.0;  // changes no time
  run.options.hardware.preset = "cpu";               // of another engine
  const MeasureResult again = run.make();
  EXPECT_EQ(run.make_key(), key);
  EXPECT_EQ(again.rows, first.rows);
  EXPECT_EQ(run.num_requests(), requests);
  run.engine.llama_server.threads = 2;
  EXPECT_NE(run.make_key(), key);
}

TEST(MeasureLlamaServer, NoisyStacksAreMeasuredAgain) {
  MeasureRun run;
  run.use("stacks-noisy");  // the first six calls of every server: one round of three passes
  run.engine.timing = {.warmup_calls = 0, .samples = 3, .max_rounds = 4};
  const MeasureResult result = run.make();
  expect_true_rows(result, run.space);
  EXPECT_THAT(result.doubts, testing::IsEmpty());
  EXPECT_GE(result.rows.front().samples, 6);
}

TEST(MeasureLlamaServer, ResultsThatCannotBeAreNamedEvenByAResumedRun) {
  MeasureRun run;
  run.use("stacks-inverse");
  run.engine.timing.max_rounds = 2;
  const MeasureResult result = run.make();
  EXPECT_THAT(result.doubts, testing::Contains(testing::HasSubstr("ffn/w32 generate of batch 1")));
  EXPECT_EQ(run.num_requests(), 8 * (1 + 2 * 3) * 2) << "both rounds";
  EXPECT_EQ(run.make().doubts, result.doubts);
  EXPECT_EQ(run.make().worst_residual, result.worst_residual);
}

TEST(MeasureLlamaServer, AnInterruptedMeasurementGoesOn) {
  MeasureRun run;
  run.use("stacks-dying");  // at the third call: after one pass of two points
  run.engine.timing.warmup_calls = 0;
  EXPECT_PUZZLE_ERROR((void)run.make(), ErrorKind::kIo, "ended with");
  const std::int64_t before = run.num_requests();
  EXPECT_GE(before, 8 * 2);
  run.use("stacks");
  expect_true_rows(run.make(), run.space);
  EXPECT_EQ(run.num_requests() - before, 8 * 2 * 2) << "two passes were left";
}

TEST(MeasureLlamaServer, SeveralBatchSizesGoTogether) {
  MeasureRun run;
  run.scenario.batch = {1, 2};
  const MeasureResult result = run.make();
  std::set<std::int64_t> batches;
  for (const MeasuredCost& row : result.rows) {
    batches.insert(row.batch);
    if (row.subblock == kFixedSubblock && row.phase == Phase::kGenerate) {
      EXPECT_NEAR(row.seconds, test::kMadeUpFixedSeconds, 1e-6)
          << "a server has no slots for others";
    }
  }
  EXPECT_EQ(batches, (std::set<std::int64_t>{1, 2}));
}

TEST(MeasureNative, TimesEverySubblock) {
  MeasureRun run;
  run.options.engine = "native";
  run.engine.timing = {.warmup_calls = 0, .samples = 2, .max_rounds = 1};
  const MeasureResult result = run.make();
  std::map<std::string, std::int64_t> rows;
  std::map<std::string, double> sums;
  for (const MeasuredCost& row : result.rows) {
    ++rows[row.subblock];
    sums[row.subblock] += row.seconds;
    EXPECT_TRUE(std::isfinite(row.seconds) && row.seconds >= 0.0) << row.subblock;
    EXPECT_LT(row.seconds, 1.0) << row.subblock;
    EXPECT_EQ(row.samples, 2);
  }
  for (const auto& [name, seconds] : true_seconds(run.space)) {
    EXPECT_EQ(rows[name], 4) << name;
    EXPECT_GT(sums[name], 0.0) << name;
  }
  EXPECT_EQ(rows.size(), true_seconds(run.space).size());
  const MeasureResult again = run.make();
  EXPECT_EQ(again.rows, result.rows);
  EXPECT_EQ(run.num_requests(), 0);
}

TEST(MeasureRoofline, FollowsTheHardware) {
  MeasureRun run;
  run.options.engine = "roofline";
  run.options.types = "fp8";
  const MeasureResult result = run.make();
  for (const MeasuredCost& row : result.rows) {
    if (row.subblock == "ffn/w96" && row.phase == Phase::kGenerate) {
      // Three F8 matrices, an F32 norm, and a 2-byte hidden state in and out, at 3.35 TB/s x 0.8.
      const double bytes = 3.0 * 96 * 64 + 4 * 64 + 2 * 2 * 64;
      EXPECT_NEAR(row.seconds, bytes / (3.35e12 * 0.8) + 5e-6, 1e-15);
    }
  }
  const std::string key = run.make_key();
  run.engine.timing.samples = 7;  // nothing is timed
  EXPECT_EQ(run.make_key(), key);
  run.options.hardware.preset = "rtx-4090";
  EXPECT_NE(run.make_key(), key);
  run.options.hardware.preset = "a100-sxm";
  EXPECT_PUZZLE_ERROR((void)run.make(), ErrorKind::kUsage, "no peak for F8_E4M3");
}

CostTable whole_table(const SearchSpace& space) {
  CostTable table;
  for (const auto& [name, seconds] : true_seconds(space)) {
    for (const Phase phase : {Phase::kPrefill, Phase::kGenerate}) {
      table.rows.push_back({name, phase, 1, 8, seconds, seconds, seconds, 1});
    }
  }
  return table;
}

TEST(MeasureTable, TakesTheRowsOfTheFile) {
  MeasureRun run;
  run.options.engine = "table";
  run.options.table = run.folder / "costs.json";
  CostTable table = whole_table(run.space);
  save_cost_table(run.options.table, table);
  const MeasureResult result = run.make();
  EXPECT_THAT(result.rows, testing::UnorderedElementsAreArray(table.rows));
  const std::string key = run.make_key();
  table.rows.front().seconds = table.rows.front().p90_s = 1.0;
  save_cost_table(run.options.table, table);
  EXPECT_NE(run.make_key(), key);
}

TEST(MeasureTable, SaysBeforehandWhatTheFileLacks) {
  MeasureRun run;
  run.options.engine = "table";
  const auto check = [&] { check_measure(run.options, run.space, run.scenario, run.parent.path); };
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kUsage, "measure.table is empty");
  run.options.table = run.folder / "costs.json";
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kIo, "costs.json");
  CostTable table = whole_table(run.space);
  std::erase_if(table.rows, [](const MeasuredCost& row) {
    return row.subblock == "ffn/w32" ||
           (row.subblock == "attention/kv1" && row.phase == Phase::kGenerate);
  });
  save_cost_table(run.options.table, table);
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kUsage, "no times of ffn/w32 prefill for batch 1");
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kUsage, "no times of attention/kv1 generate");
  save_cost_table(run.options.table, whole_table(run.space));
  EXPECT_NO_THROW(check());
  run.scenario.batch = {1, 4};
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kUsage, "for batch 4, only for 1");
  run.options.engine = "llama-server";
  run.scenario.cache_type = "fp8";
  EXPECT_PUZZLE_ERROR(check(), ErrorKind::kUsage, "which llama.cpp does not have");
}

}  // namespace
}  // namespace puzzle
