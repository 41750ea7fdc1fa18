#include "puzzle/stages/score_table.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

ScoreRow row(std::int64_t layer, const std::string& block, const std::string& metric, double value,
             double error) {
  return {.key = block + metric,
          .layer = layer,
          .block = block,
          .method = "replace-one",
          .metric = metric,
          .value = value,
          .standard_error = error,
          .tokens = 1};
}

std::vector<ScoreRow> rows() {
  return {row(0, "kv1/w96", "kl", 0.5, 0.03),    row(0, "kv4/w32", "kl", 0.25, 0.04),
          row(0, "none/w96", "kl", 2.0, 0.1),    row(0, "kv1/w32", "kl", 0.9, 0.2),
          row(1, "kv1/w96", "kl", 7.0, 0.5),     row(1, "kv4/w32", "kl", -0.5, 0.1),
          row(0, "kv1/w96", "top1", 0.75, 0.01), row(0, "kv4/w32", "top1", 0.5, 0.02),
          row(0, "kv1/w96", "lm_loss", 0.1, 0.0)};
}

TEST(ScoreTable, BlocksAreTheirHalvesUnlessScoredExactly) {
  const ModelSpec parent = test::tiny_spec(2);
  const ScoreTable table(rows(), parent, "kl");
  const auto value = [&](std::int64_t layer, const char* block) {
    return table.block(layer, parse_block(block)).value;
  };
  EXPECT_EQ(value(0, "kv4/w96"), 0.0);
  EXPECT_EQ(value(1, "kv4/w96"), 0.0);
  EXPECT_EQ(value(0, "kv1/w96"), 0.5);
  EXPECT_EQ(value(0, "none/w96"), 2.0);
  EXPECT_EQ(value(0, "none/w32"), 2.25);
  EXPECT_EQ(value(0, "kv1/w32"), 0.9);  // the pair's own row, not 0.75
  EXPECT_EQ(value(1, "kv1/w32"), 6.5);  // the exact row is of layer 0 only
}

TEST(ScoreTable, ErrorsOfHalvesAddInSquares) {
  const ScoreTable table(rows(), test::tiny_spec(2), "kl");
  EXPECT_DOUBLE_EQ(table.block(0, parse_block("none/w32")).standard_error,
                   std::sqrt(0.1 * 0.1 + 0.04 * 0.04));
  EXPECT_EQ(table.block(0, parse_block("kv1/w32")).standard_error, 0.2);
  EXPECT_EQ(table.block(0, parse_block("kv4/w96")).standard_error, 0.0);
}

TEST(ScoreTable, ExactScoresGoBeforeEstimates) {
  const auto estimate = [](const std::string& block, double value) {
    ScoreRow found = row(0, block, "kl", value, 0.01);
    found.method = "gradient";
    return found;
  };
  // The halves' effects have a correlation of (1.5 - 0.4 - 0.9) / (2 √(0.4 · 0.9)) = 1/6.
  std::vector<ScoreRow> rows = {estimate("kv1/w96", 0.4), estimate("kv4/w32", 0.9),
                                estimate("kv1/w32", 1.5), estimate("kv4/w64", 0.1)};
  const ModelSpec parent = test::tiny_spec(2);
  const auto value = [&](const char* block) {
    return ScoreTable(rows, parent, "kl").block(0, parse_block(block)).value;
  };
  EXPECT_EQ(value("kv1/w96"), 0.4);
  EXPECT_NEAR(value("kv1/w32"), 1.5, 1e-12);
  EXPECT_NEAR(value("kv1/w64"), 0.5, 1e-12);  // no estimate of the pair
  rows.push_back(row(0, "kv1/w96", "kl", 1.6, 0.02));
  EXPECT_EQ(value("kv1/w96"), 1.6);
  EXPECT_NEAR(value("kv1/w32"), 1.6 + 0.9 + 2.0 / 6.0 * std::sqrt(1.6 * 0.9), 1e-12);
  rows.push_back(row(0, "kv1/w32", "kl", 7.0, 0.02));
  EXPECT_EQ(value("kv1/w32"), 7.0);
}

TEST(ScoreTable, EstimatesAreCorrectedByTheMedianFactorOfTheirKind) {
  std::vector<ScoreRow> rows;
  const auto both = [&](std::int64_t layer, const std::string& block, double estimate,
                        double factor) {
    rows.push_back(row(layer, block, "kl", estimate, 0.01));
    rows.back().method = "gradient";
    if (factor > 0.0) {
      rows.push_back(row(layer, block, "kl", estimate * factor, 0.02));
    }
  };
  const ModelSpec parent = test::tiny_spec(6);
  both(0, "kv1/w96", 0.1, 50.0);  // the first and the last layer do not count
  both(5, "kv1/w96", 0.1, 60.0);
  both(1, "kv1/w96", 0.1, 1.5);
  both(2, "kv1/w96", 0.3, 1.4);
  both(1, "kv4/w32", 0.1, 1.1);
  both(2, "kv4/w32", 0.2, 1.2);
  both(3, "kv1/w96", 0.2, 0.0);
  both(3, "kv4/w32", 0.4, 0.0);
  const auto table = [&] { return ScoreTable(rows, parent, "kl"); };
  EXPECT_EQ(table().factors().attention, 1.0) << "two are too few";
  EXPECT_EQ(table().block(3, parse_block("kv1/w96")).value, 0.2);
  both(4, "none/w96", 0.5, 9.0);
  both(3, "none/w96", 0.5, 1.6);
  both(4, "kv4/w32", 0.2, 0.9);
  EXPECT_NEAR(table().factors().attention, std::sqrt(1.5 * 1.6), 1e-12);
  EXPECT_NEAR(table().factors().ffn, 1.1, 1e-12);
  EXPECT_NEAR(table().block(3, parse_block("kv1/w96")).value, 0.2 * std::sqrt(2.4), 1e-12);
  EXPECT_NEAR(table().block(3, parse_block("kv4/w32")).value, 0.44, 1e-12);
  EXPECT_NEAR(table().block(3, parse_block("kv4/w32")).standard_error, 0.011, 1e-12);
  EXPECT_NEAR(table().block(2, parse_block("kv1/w96")).value, 0.42, 1e-12) << "exact";
}

TEST(ScoreTable, AgreementIsTurnedRoundSoThatLowerIsBetter) {
  const ScoreTable table(rows(), test::tiny_spec(2), "top1");
  EXPECT_DOUBLE_EQ(table.block(0, parse_block("kv1/w96")).value, 0.25);
  EXPECT_DOUBLE_EQ(table.block(0, parse_block("kv1/w32")).value, 0.75);
}

TEST(ScoreTable, MetricsDoNotMix) {
  const ScoreTable table(rows(), test::tiny_spec(2), "lm_loss");
  EXPECT_EQ(table.block(0, parse_block("kv1/w96")).value, 0.1);
  EXPECT_PUZZLE_ERROR((void)table.block(0, parse_block("kv4/w32")), ErrorKind::kUsage,
                      "layer 0 has no lm_loss score for kv4/w32");
}

TEST(ScoreTable, SaysWhatIsMissing) {
  const ScoreTable table(rows(), test::tiny_spec(2), "kl");
  EXPECT_PUZZLE_ERROR((void)table.block(1, parse_block("none/w32")), ErrorKind::kUsage,
                      "layer 1 has no kl score for none/w96");
  EXPECT_PUZZLE_ERROR(ScoreTable(rows(), test::tiny_spec(2), "accuracy"), ErrorKind::kUsage,
                      "accuracy");
}

}  // namespace
}  // namespace puzzle
