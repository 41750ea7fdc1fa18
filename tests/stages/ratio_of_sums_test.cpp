#include "puzzle/stages/ratio_of_sums.h"

#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/toy_corpus.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/stages/independent_windows.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

TEST(RatioOfSums, IsTheDeltaMethodsByHand) {
  RatioOfSums ratio(3);
  ratio.add(0, 1.0, 2.0);
  ratio.add(2, 5.0, 4.0);
  ratio.add(1, 3.0, 2.0);
  ratio.add(0, 2.0, 2.0);
  const auto result = ratio.result();
  // 11 / 10; residuals 3 - 4.4, 3 - 2.2, 5 - 4.4.
  EXPECT_DOUBLE_EQ(result.value, 1.1);
  EXPECT_EQ(result.count, 10);
  EXPECT_NEAR(result.standard_error,
              std::sqrt((1.4 * 1.4 + 0.8 * 0.8 + 0.6 * 0.6) * 3.0 / 2.0) / 10.0, 1e-12);
}

TEST(RatioOfSums, OneUnitHasNoError) {
  RatioOfSums ratio(2);
  EXPECT_EQ(ratio.result().value, 0.0);
  ratio.add(1, 3.0, 4.0);
  EXPECT_EQ(ratio.result().value, 0.75);
  EXPECT_EQ(ratio.result().standard_error, 0.0);
}

TEST(RatioOfSums, UnitsMayBeDividedOverRanks) {
  const std::vector<std::int64_t> units = {0, 0, 1, 2, 1};
  const at::Tensor values =
      at::tensor({1.0, 2.0, 0.0, 4.0, 9.0, 1.0, 7.0, 7.0, 3.0, 5.0}, at::TensorOptions(at::kFloat));
  const at::Tensor counted = at::tensor({1, 1, 1, 0, 1, 1, 1, 1, 1, 0}).to(at::kBool);
  RatioOfSums whole(3);
  whole.add_windows(units, values, counted);
  EXPECT_DOUBLE_EQ(whole.result().value, (3.0 + 0.0 + 10.0 + 14.0 + 3.0) / 8.0);
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    const bool is_first = communicator.is_first();
    RatioOfSums part(3);
    part.add_windows(std::span(units).subspan(is_first ? 0 : 3, is_first ? 3 : 2),
                     is_first ? values.narrow(0, 0, 6) : values.narrow(0, 6, 4),
                     is_first ? counted.narrow(0, 0, 6) : counted.narrow(0, 6, 4));
    const auto result = part.result(communicator);
    EXPECT_DOUBLE_EQ(result.value, whole.result().value);
    EXPECT_DOUBLE_EQ(result.standard_error, whole.result().standard_error);
    EXPECT_EQ(result.count, 8);
  });
}

TEST(RatioOfSums, DifferencesArePairedByUnit) {
  RatioOfSums a(2), b(2);
  a.add(0, 5.0, 2.0);
  a.add(1, 9.0, 2.0);
  b.add(0, 4.0, 2.0);
  b.add(1, 8.0, 2.0);
  SingleCommunicator communicator;
  EXPECT_DOUBLE_EQ(a.minus(b, communicator).value, 0.5);
  EXPECT_NEAR(a.minus(b, communicator).standard_error, 0.0, 1e-12);
  EXPECT_GT(a.result().standard_error, 0.1);
}

WindowUnits units_of(const std::vector<std::int64_t>& starts) {
  const test::ToyCorpus corpus({std::vector<std::string>(40, "abcdefghijklmnopqrstuvwx")});
  return independent_units(TokenPart("part", corpus.load(), starts, {16, true}));
}

TEST(IndependentWindows, NeighboursAreOneUnitInAnyOrder) {
  const WindowUnits units = units_of({32, 160, 16, 48, 176, 320});
  EXPECT_EQ(units.count, 3);
  EXPECT_EQ(units.unit_of_window, (std::vector<std::int64_t>{0, 1, 0, 0, 1, 2}));
}

TEST(IndependentWindows, LongRunsAreCutAndAShortOneIsNotOneUnit) {
  std::vector<std::int64_t> run;
  for (std::int64_t i = 0; i < 20; ++i) {
    run.push_back(16 * i);
  }
  EXPECT_EQ(units_of(run).count, 3);
  EXPECT_EQ(units_of({0, 16, 32}).count, 3);
  EXPECT_EQ(units_of({0, 16, 32}).unit_of_window, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(units_of({}).count, 0);
}

}  // namespace
}  // namespace puzzle
