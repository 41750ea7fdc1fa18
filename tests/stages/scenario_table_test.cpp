#include "puzzle/stages/scenario_table.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/results/throughput_rows.h"
#include "puzzle/stages/gguf_export.h"
#include "stages/stack_server.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using ::testing::ElementsAre;

// A parent and a child as F32 files, timed by the made-up server.
struct ScenarioRun : test::StackServerRun {
  ScenarioRun() {
    options.lengths = {"8/5", "4/24"};
    options.batch = {1, 2};
    costs.types = "f32";
    costs.stack_layers = 2;
    costs.steps = 2;
    write("parent", parent.weights);
    write("child", random_model(with_layers(parent.weights.spec,
                                            {{AttentionSpec::gqa(1), FfnSpec::swiglu(32)},
                                             {AttentionSpec::gqa(1), FfnSpec::swiglu(32)},
                                             {AttentionSpec::none(), FfnSpec::swiglu(64)}}),
                                8));
  }
  void write(const std::string& name, const ModelWeights& model) {
    models.push_back({name, folder / (name + ".gguf"), model.spec.layers});
    write_model_gguf(models.back().file, model,
                     {.name = name,
                      .license = "",
                      .parent_name = "",
                      .tokenizer_source = parent.path,
                      .types = gguf_weight_types("f32", parent.path)});
  }
  void make() {
    measure_scenarios(context, parent, models, *validation, scenario, options, costs, engine);
  }

  ScenarioTableOptions options;
  Scenario scenario;
  MeasureOptions costs;
  std::vector<ScenarioModel> models;
};

TEST(ScenarioTable, EveryBatchAtEveryLengthIsTimedAndPredicted) {
  ScenarioRun run;
  run.make();
  const std::vector<ThroughputRow> rows = scenario_throughput(run.db);
  ASSERT_EQ(rows.size(), 2U * 4U);
  EXPECT_TRUE(run_throughput(run.db).empty()) << "they are not of the run's own workload";
  const auto pairs = timed_pairs(rows, "parent", "child");
  ASSERT_EQ(pairs.size(), 4U);
  std::vector<std::string> seen;
  for (const TimedPair& pair : pairs) {
    const ThroughputRow& child = *pair.model;
    seen.push_back(
        fmt::format("{}x{}/{}", child.batch, child.prompt_tokens, child.generated_tokens));
    for (const ThroughputRow* row : {pair.parent, pair.model}) {
      const auto& layers = run.models[row == pair.parent ? 0 : 1].layers;
      const double token_s = test::made_up_seconds(layers);
      const auto tokens = static_cast<double>(row->prompt_tokens);
      EXPECT_NEAR(*row->measured_prefill_s / (tokens * token_s), 1.0, 1e-6) << seen.back();
      EXPECT_NEAR(*row->measured_generation_per_s * token_s / static_cast<double>(row->batch), 1.0,
                  1e-6);
      EXPECT_NEAR(*row->predicted_prefill_s / *row->measured_prefill_s, 1.0, 0.02) << seen.back();
      EXPECT_NEAR(*row->predicted_generation_per_s / *row->measured_generation_per_s, 1.0, 0.02);
    }
  }
  EXPECT_THAT(seen, testing::UnorderedElementsAre("1x8/5", "2x8/5", "1x4/24", "2x4/24"));
}

TEST(ScenarioTable, WhatIsRecordedIsNotTimedAgainAndTheTableIsWhatTheOptionsSay) {
  ScenarioRun run;
  run.options.predict = false;
  run.make();
  const std::int64_t requests = run.num_requests();
  EXPECT_EQ(requests, 4 * 2 * (1 + 3)) << "four workloads, two files, warm-up and three samples";
  EXPECT_FALSE(scenario_throughput(run.db).front().predicted_prefill_s.has_value());
  run.options.lengths = {"4/24", "16/2"};
  run.make();
  EXPECT_EQ(run.num_requests() - requests, 2 * 2 * (1 + 3)) << "16/2 in two batches is new";
  EXPECT_EQ(scenario_throughput(run.db).size(), 2U * 4U);
  EXPECT_TRUE(run.db.costs().empty());
}

TEST(ScenarioTable, NewPredictionsDoNotTimeFilesAgain) {
  ScenarioRun run;
  run.make();
  const std::vector<ThroughputRow> before = scenario_throughput(run.db);
  run.options.predict = false;
  std::int64_t requests = run.num_requests();
  run.make();
  EXPECT_EQ(run.num_requests(), requests);
  EXPECT_FALSE(scenario_throughput(run.db).front().predicted_prefill_s.has_value());
  run.options.predict = true;
  run.make();
  EXPECT_EQ(run.num_requests(), requests);
  const std::vector<ThroughputRow> after = scenario_throughput(run.db);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].predicted_prefill_s, before[i].predicted_prefill_s);
    EXPECT_EQ(after[i].measured_prefill_s, before[i].measured_prefill_s);
  }
}

TEST(ScenarioTable, FilesOfOtherTypesThanWereTimedAreNotPredicted) {
  ScenarioRun run;
  run.options.lengths = {"8/5"};
  run.options.batch = {1};
  run.costs.types = "f16";
  run.make();
  for (const ThroughputRow& row : scenario_throughput(run.db)) {
    EXPECT_TRUE(row.measured_prefill_s.has_value());
    EXPECT_FALSE(row.predicted_prefill_s.has_value());
  }
}

TEST(ScenarioTable, LengthsAreReadOrRefused) {
  ScenarioTableOptions options;
  options.lengths = {"128/1024"};
  options.batch = {4};
  ASSERT_EQ(options.workloads().size(), 1U);
  EXPECT_EQ(options.workloads()[0].batch, 4);
  EXPECT_EQ(options.workloads()[0].prompt_tokens, 128);
  EXPECT_EQ(options.workloads()[0].generated_tokens, 1024);
  EXPECT_EQ(options.longest(), 1152);
  for (const char* text :
       {"", "128", "128/", "/128", "128/1", "0/5", "128/1024/3", "a/b", "8 /5"}) {
    options.lengths = {text};
    EXPECT_PUZZLE_ERROR((void)options.workloads(), ErrorKind::kUsage, "scenarios.lengths");
  }
}

TEST(ScenarioTable, SubblocksAreTimedAtEveryPromptAndWhereTheLongestEnds) {
  EXPECT_THAT(predicted_contexts({{1, 2048, 128}, {4, 128, 128}, {1, 128, 128}}),
              ElementsAre(128, 2048));
  EXPECT_THAT(predicted_contexts({{1, 128, 4096}, {1, 2048, 128}}), ElementsAre(128, 2048, 4224));
  EXPECT_THAT(predicted_contexts({{1, 128, 16}}), ElementsAre(128, 144));
  // A short line does not reach far.
  EXPECT_THAT(predicted_contexts({{1, 1900, 128}, {1, 2048, 512}}), ElementsAre(1900, 2048, 2560));
  EXPECT_EQ(predicted_steps({{1, 2048, 128}, {4, 128, 128}}, 32), 128);
  EXPECT_EQ(predicted_steps({{1, 128, 128}}, 32), 32);
}

}  // namespace
}  // namespace puzzle
