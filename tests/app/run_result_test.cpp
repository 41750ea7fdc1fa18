#include "puzzle/app/run_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/scenario_text.h"
#include "puzzle/base/json.h"
#include "puzzle/results/throughput_rows.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;

// Seconds: attention 4 and FFN 2 of prefill, a tenth of that per step; a sub-block left out is
// free.
CostModel made_up_times() {
  std::vector<MeasuredCost> rows;
  for (const auto& [subblock, seconds] :
       {std::pair{"attention/kv4", 4.0}, {"ffn/w96", 2.0}, {"fixed", 1.0}}) {
    for (const std::int64_t context : {10, 30}) {
      rows.push_back({.subblock = subblock,
                      .phase = Phase::kPrefill,
                      .batch = 1,
                      .context = context,
                      .seconds = seconds});
      rows.push_back({.subblock = subblock,
                      .phase = Phase::kGenerate,
                      .batch = 1,
                      .context = context,
                      .seconds = 0.1 * seconds});
    }
  }
  return CostModel(rows, "test");
}

ThroughputRow timed_row(const std::string& model, double prefill_s, double generation_per_s) {
  ThroughputRow row;
  row.key = "t";
  row.model = model;
  row.engine = "llama-server";
  row.prompt_tokens = 10;
  row.generated_tokens = 21;
  row.measured_prefill_s = prefill_s;
  row.measured_generation_per_s = generation_per_s;
  return row;
}

class RunResult : public ::testing::Test {
 protected:
  RunResult() : db_(folder_ / "run.db"), times_(made_up_times()) {
    child_ = spec_.layers;
    child_.back() = {AttentionSpec::none(), FfnSpec::none()};
    setting_ = {&spec_, ExportTarget::kNative, WeightTypes{}, &times_, {1, 10, 21}};
  }

  [[nodiscard]] std::vector<BudgetOutcome> outcomes(const std::vector<std::string>& budgets,
                                                    const std::string& engine) const {
    return budget_outcomes(parse_budgets(budgets), setting_, child_, db_, engine);
  }

  test::TempDir folder_;
  RunDb db_;
  ModelSpec spec_ = test::tiny_spec(3);
  CostModel times_;
  Architecture child_;
  CostSetting setting_;
};

TEST_F(RunResult, ABudgetIsMetByPredictionUntilItIsMeasured) {
  // Parent: 3 · 6 + 1 = 19 s of prefill, child 13 s.
  const auto predicted = outcomes({"prefill_s <= 0.7x", "parameters <= 0.1x"}, "llama-server");
  EXPECT_NEAR(predicted[0].predicted, 13.0, 1e-9);
  EXPECT_NEAR(predicted[0].predicted_ratio, 13.0 / 19.0, 1e-9);
  EXPECT_TRUE(predicted[0].is_met);
  EXPECT_FALSE(predicted[0].measured);
  EXPECT_FALSE(predicted[1].is_met);
  EXPECT_TRUE(predicted[1].is_exact);
  EXPECT_THAT(outcome_text(predicted[0]), HasSubstr("prefill_s <= 0.7x: met, predicted 13"));
  EXPECT_THAT(outcome_text(predicted[1]), HasSubstr("parameters <= 0.1x: missed"));
}

TEST_F(RunResult, TheMeasurementDecidesWhereItIsOfTheSameEngine) {
  db_.put(std::vector<ThroughputRow>{timed_row("parent", 10.0, 2.0), timed_row("child", 8.0, 2.5)});
  const auto measured = outcomes({"prefill_s <= 0.7x", "generation_tokens_per_s >= 1.2x",
                                  "generation_s <= 8", "total_tokens_per_s >= 1.9"},
                                 "llama-server");
  EXPECT_FALSE(measured[0].is_met);  // 0.8x measured, 0.68x predicted
  EXPECT_DOUBLE_EQ(*measured[0].measured_ratio, 0.8);
  EXPECT_TRUE(measured[1].is_met);
  EXPECT_DOUBLE_EQ(*measured[1].measured_ratio, 1.25);
  EXPECT_DOUBLE_EQ(*measured[2].measured, 20.0 / 2.5);
  EXPECT_TRUE(measured[2].is_met);
  EXPECT_DOUBLE_EQ(*measured[3].measured, 31.0 / 16.0);
  EXPECT_TRUE(measured[3].is_met);
  EXPECT_THAT(outcome_text(measured[0]), HasSubstr("missed, measured 8"));
  EXPECT_TRUE(outcomes({"prefill_s <= 0.7x"}, "native")[0].is_met);
}

// Another workload than the run's must not decide its budgets, though it was timed later.
TEST_F(RunResult, TheTableOfScenariosIsShownByItself) {
  std::vector<ThroughputRow> rows = {timed_row("parent", 10.0, 2.0), timed_row("child", 8.0, 2.5)};
  db_.put(rows);
  db_.set_current(RunTable::kThroughput, "throughput", {"t"});
  for (ThroughputRow& row : rows) {
    row.key = "scenario";
    row.prompt_tokens = 4;
    row.generated_tokens = 3;
    row.measured_prefill_s = *row.measured_prefill_s / 2.0;
    row.predicted_prefill_s = *row.measured_prefill_s * 1.25;
  }
  db_.put(rows);
  db_.set_current(RunTable::kThroughput, kScenarioScope, {"scenario", "not yet timed"});
  EXPECT_DOUBLE_EQ(*outcomes({"prefill_s <= 0.7x"}, "llama-server")[0].measured, 8.0);
  const Json table = run_summary(db_, "scenarios", {}).at("scenarios");
  ASSERT_EQ(table.size(), 1U);
  EXPECT_EQ(table[0].at("prompt_tokens"), 4);
  // Two steps: 5 + 2 / 2 s against 4 + 2 / 2.5 s.
  EXPECT_DOUBLE_EQ(table[0].at("parent").at("total_s"), 6.0);
  EXPECT_DOUBLE_EQ(table[0].at("speed_up"), 6.0 / 4.8);
  const std::string text = scenario_table_text(scenario_throughput(db_));
  EXPECT_THAT(text, HasSubstr("1.25×"));
  EXPECT_THAT(text, HasSubstr("−20")) << "predicted rate of prefill";
  db_.set_current(RunTable::kThroughput, kScenarioScope, {});
  EXPECT_TRUE(run_summary(db_, "scenarios", {}).at("scenarios").empty());
}

TEST_F(RunResult, TheEndOfARunSaysWhatWasReached) {
  db_.put(std::vector<ThroughputRow>{timed_row("parent", 10.0, 2.0), timed_row("child", 8.0, 2.5)});
  db_.put(std::vector<EvaluationRow>{{"e", "child", "held-out text", "kl", 0.213, 0.003, 100},
                                     {"e", "uniform", "held-out text", "kl", 0.4, 0.01, 100}});
  ModelRow parent;
  parent.key = parent.name = "parent";
  parent.parameters = 1000;
  parent.file_bytes = 2000;
  ModelRow child = parent;
  child.key = child.name = "child";
  child.parameters = 700;
  child.file_bytes = 1500;
  db_.put(std::vector<ModelRow>{parent, child});
  const std::string text = run_text(db_, outcomes({"parameters <= 0.9x"}, "llama-server"));
  for (const char* part :
       {"1.25×", "0.750×", "0.213 ± 0.003", "uniform", "parameters <= 0.9x: met"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST_F(RunResult, ASummaryHoldsWhatTheStageMade) {
  db_.put(std::vector<ScoreRow>{{"s", 0, "kv1/w96", "replace-one", "kl", 0.1, 0.01, 64}});
  const Json scores = run_summary(db_, "score", {});
  EXPECT_EQ(scores.at("scores").at(0).at("block"), "kv1/w96");
  EXPECT_FALSE(scores.contains("architectures"));
  const Json whole = run_summary(db_, "report", outcomes({"parameters <= 0.9x"}, "native"));
  EXPECT_FALSE(whole.contains("scores"));
  EXPECT_EQ(whole.at("budgets").at(0).at("met_by"), "exact");
  EXPECT_TRUE(whole.contains("throughput"));
}

}  // namespace
}  // namespace puzzle
