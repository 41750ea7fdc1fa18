#include "puzzle/engine/width_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

using ::testing::ElementsAre;

TEST(WidthCosts, TimedWidthsAreSpreadOverAll) {
  const std::vector<std::int64_t> fine = {800, 700, 600, 500, 400, 300, 200, 100};
  EXPECT_THAT(spread_widths(fine, 2), ElementsAre(800, 100));
  EXPECT_THAT(spread_widths(fine, 3), ElementsAre(800, 500, 100));
  EXPECT_THAT(spread_widths(fine, 4), ElementsAre(800, 600, 300, 100));
  EXPECT_EQ(spread_widths(fine, 7).size(), 7U);
  EXPECT_EQ(spread_widths(fine, 8), fine);
  EXPECT_THAT(spread_widths({5}, 2), ElementsAre(5));
}

TEST(WidthCosts, TimesBetweenLieOnTheLine) {
  std::vector<MeasuredCost> rows = {{"attention/kv3", Phase::kPrefill, 1, 128, 9.0, 8.0, 10.0, 5},
                                    {"ffn/w100", Phase::kPrefill, 1, 128, 2.0, 1.0, 3.0, 5},
                                    {"ffn/w300", Phase::kPrefill, 1, 128, 4.0, 2.0, 7.0, 5},
                                    {"ffn/w700", Phase::kPrefill, 1, 128, 5.0, 4.0, 9.0, 5},
                                    {"ffn/linear", Phase::kPrefill, 1, 128, 1.0, 1.0, 1.0, 5},
                                    {"ffn/w100", Phase::kGenerate, 1, 128, 0.2, 0.1, 0.3, 5},
                                    {"ffn/w700", Phase::kGenerate, 1, 128, 0.8, 0.4, 0.9, 5}};
  const std::vector<MeasuredCost> before = rows;
  interpolate_widths(rows, {700, 400, 100, 150});
  ASSERT_EQ(rows.size(), before.size() + 4);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), rows.begin()));
  const auto find = [&](const std::string& name, Phase phase) {
    for (const MeasuredCost& row : rows) {
      if (row.subblock == name && row.phase == phase) {
        return row;
      }
    }
    ADD_FAILURE() << name;
    return MeasuredCost{};
  };
  EXPECT_DOUBLE_EQ(find("ffn/w150", Phase::kPrefill).seconds, 2.5);
  EXPECT_DOUBLE_EQ(find("ffn/w150", Phase::kPrefill).p90_s, 4.0);
  EXPECT_DOUBLE_EQ(find("ffn/w400", Phase::kPrefill).seconds, 4.25);
  EXPECT_DOUBLE_EQ(find("ffn/w400", Phase::kGenerate).seconds, 0.5);
  EXPECT_DOUBLE_EQ(find("ffn/w400", Phase::kGenerate).p10_s, 0.25);
  EXPECT_EQ(find("ffn/w400", Phase::kGenerate).samples, 0);
  EXPECT_PUZZLE_ERROR(interpolate_widths(rows, {701}), ErrorKind::kUsage, "100 to 700");
  EXPECT_PUZZLE_ERROR(interpolate_widths(rows, {99}), ErrorKind::kUsage, "width 99");
}

}  // namespace
}  // namespace puzzle
