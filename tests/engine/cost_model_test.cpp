#include "puzzle/engine/cost_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

MeasuredCost prefill(const std::string& subblock, std::int64_t context, double seconds,
                     std::int64_t batch = 1) {
  return {subblock, Phase::kPrefill, batch, context, seconds, seconds, seconds, 1};
}

MeasuredCost step(const std::string& subblock, std::int64_t context, double seconds,
                  std::int64_t batch = 1) {
  return {subblock, Phase::kGenerate, batch, context, seconds, seconds, seconds, 1};
}

// Attention grows with the context, the FFN does not.
CostModel small_model() {
  return CostModel({step("attention/kv3", 0, 1.0), step("attention/kv3", 100, 3.0),
                    step("attention/kv3", 200, 4.0), prefill("attention/kv3", 64, 10.0),
                    prefill("attention/kv3", 128, 30.0), step("ffn/w8", 0, 2.0),
                    step("ffn/w8", 200, 2.0), prefill("ffn/w8", 128, 20.0), step("fixed", 0, 0.5),
                    step("fixed", 200, 0.5), prefill("fixed", 128, 1.0)},
                   "costs");
}

TEST(CostModel, IsLinearBetweenTheRows) {
  const CostModel model = small_model();
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kGenerate, 1, 0), 1.0);
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kGenerate, 1, 50), 2.0);
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kGenerate, 1, 100), 3.0);
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kGenerate, 1, 150), 3.5);
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kPrefill, 1, 96), 20.0);
}

TEST(CostModel, GoesOnAlongTheLastTwoRows) {
  const CostModel model = small_model();
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kGenerate, 1, 300), 5.0);
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kPrefill, 1, 48), 5.0);
  // The line through (64, 10) and (128, 30) is below 0 at 16.
  EXPECT_DOUBLE_EQ(model.seconds("attention/kv3", Phase::kPrefill, 1, 16), 0.0);
}

TEST(CostModel, ScalesASinglePromptAndKeepsASingleStep) {
  const CostModel model({prefill("ffn/w8", 128, 20.0), step("ffn/w8", 128, 2.0)}, "costs");
  EXPECT_DOUBLE_EQ(model.seconds("ffn/w8", Phase::kPrefill, 1, 64), 10.0);
  EXPECT_DOUBLE_EQ(model.seconds("ffn/w8", Phase::kGenerate, 1, 64), 2.0);
}

TEST(CostModel, SumsTheStepsThatFollowPrefill) {
  // Contexts 98, 99, 100, 101: 1 + 2 c / 100 up to 100, then 3 + (c - 100) / 100.
  const PhaseSeconds seconds = small_model().workload_seconds(
      "attention/kv3", {.batch = 1, .prompt_tokens = 98, .generated_tokens = 5});
  EXPECT_NEAR(seconds.generation_s, 2.96 + 2.98 + 3.00 + 3.01, 1e-12);
  EXPECT_NEAR(seconds.prefill_s, 10.0 + 20.0 * (98.0 - 64.0) / 64.0, 1e-12);
}

TEST(CostModel, PredictsAWholeModel) {
  const Architecture layers = {{AttentionSpec::gqa(3), FfnSpec::swiglu(8)},
                               {AttentionSpec::none(), FfnSpec::swiglu(8)},
                               {AttentionSpec::gqa(3), FfnSpec::none()}};
  const Workload workload{.batch = 1, .prompt_tokens = 128, .generated_tokens = 3};
  const Prediction prediction = small_model().predict(layers, workload);
  EXPECT_NEAR(prediction.seconds.prefill_s, 2 * 30.0 + 2 * 20.0 + 1.0, 1e-12);
  // Two steps, at 128 and 129 cached tokens.
  EXPECT_NEAR(prediction.seconds.generation_s, 2 * (3.28 + 3.29) + 2 * 4.0 + 1.0, 1e-12);
  EXPECT_NEAR(prediction.generation_tokens_per_s, 2.0 / prediction.seconds.generation_s, 1e-12);
  EXPECT_NEAR(prediction.total_tokens_per_s, 131.0 / prediction.seconds.total_s(), 1e-12);
  EXPECT_TRUE(prediction.extrapolated.empty());
}

TEST(CostModel, SaysWhatAPredictionExtrapolates) {
  const Architecture layers = {{AttentionSpec::gqa(3), FfnSpec::none()}};
  const auto predict = [&](std::int64_t generated_tokens) {
    return small_model().predict(
        layers, {.batch = 1, .prompt_tokens = 128, .generated_tokens = generated_tokens});
  };
  EXPECT_TRUE(predict(124).extrapolated.empty()) << "up to 250, a quarter of 200 beyond";
  EXPECT_THAT(
      predict(150).extrapolated,
      testing::ElementsAre("attention/kv3 generate: context 0 … 200 measured, 128 … 276 asked for",
                           "fixed generate: context 0 … 200 measured, 128 … 276 asked for"));
}

TEST(CostModel, ThroughputCountsTheWholeBatch) {
  const Workload workload{.batch = 4, .prompt_tokens = 10, .generated_tokens = 6};
  EXPECT_DOUBLE_EQ(generation_tokens_per_s(workload, 2.0), 10.0);
  EXPECT_DOUBLE_EQ(total_tokens_per_s(workload, 4.0), 16.0);
  EXPECT_DOUBLE_EQ(generation_tokens_per_s({.batch = 4, .generated_tokens = 1}, 0.0), 0.0);
}

TEST(CostModel, ASubblockThatIsLeftOutIsFreeUnlessItWasMeasured) {
  EXPECT_EQ(small_model().seconds("ffn/none", Phase::kGenerate, 1, 5), 0.0);
  // deci writes a missing attention in layer 0 as a zero matrix, which does take time.
  const CostModel lowered({step("attention/none", 1, 0.25)}, "costs");
  EXPECT_EQ(lowered.seconds("attention/none", Phase::kGenerate, 1, 5), 0.25);
}

TEST(CostModel, NamesWhatWasNotMeasured) {
  const CostModel model({step("ffn/w8", 1, 1.0, 2), step("ffn/w8", 1, 1.0, 8)}, "costs");
  EXPECT_PUZZLE_ERROR((void)model.seconds("ffn/w8", Phase::kGenerate, 4, 1), ErrorKind::kUsage,
                      "costs: no times of ffn/w8 generate for batch 4, only for 2, 8");
  EXPECT_PUZZLE_ERROR((void)model.seconds("ffn/w16", Phase::kPrefill, 1, 1), ErrorKind::kUsage,
                      "no times of ffn/w16 prefill for batch 1; measure it");
}

TEST(CostModel, RefusesRowsThatContradict) {
  EXPECT_PUZZLE_ERROR(CostModel({step("fixed", 1, 1.0), step("fixed", 1, 2.0)}, "costs"),
                      ErrorKind::kFormat, "costs: fixed generate of batch 1 at 1 tokens: two rows");
  EXPECT_PUZZLE_ERROR(CostModel({step("fixed", 1, -1.0)}, "costs"), ErrorKind::kFormat,
                      "-1 seconds");
  EXPECT_PUZZLE_ERROR(
      (void)small_model().predict({}, {.batch = 0, .prompt_tokens = 1, .generated_tokens = 1}),
      ErrorKind::kUsage, "batch 0");
}

}  // namespace
}  // namespace puzzle
