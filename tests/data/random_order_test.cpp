#include "puzzle/data/random_order.h"

#include <algorithm>
#include <array>
#include <numeric>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

TEST(RandomOrder, IsAPermutation) {
  for (const std::int64_t count : {0, 1, 2, 17, 1000}) {
    std::vector<std::int64_t> order = random_order(count, 5);
    std::sort(order.begin(), order.end());
    std::vector<std::int64_t> expected(static_cast<std::size_t>(count));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(order, expected);
  }
}

// From a transcription of SplitMix64 and Fisher-Yates into Python; splits and batches depend on it.
TEST(RandomOrder, NeverChanges) {
  EXPECT_EQ(random_order(10, 0), (std::vector<std::int64_t>{6, 3, 2, 9, 8, 1, 4, 7, 0, 5}));
  EXPECT_EQ(random_order(10, 123456789), (std::vector<std::int64_t>{8, 3, 9, 2, 4, 6, 1, 5, 0, 7}));
}

TEST(RandomOrder, PutsEveryNumberEverywhereAlike) {
  constexpr std::int64_t kCount = 5;
  constexpr int kRuns = 20'000;
  std::array<std::array<int, kCount>, kCount> seen{};
  for (int run = 0; run < kRuns; ++run) {
    const std::vector<std::int64_t> order = random_order(kCount, static_cast<std::uint64_t>(run));
    for (std::size_t i = 0; i < kCount; ++i) {
      ++seen[i][static_cast<std::size_t>(order[i])];
    }
  }
  for (const auto& row : seen) {
    for (const int count : row) {
      EXPECT_NEAR(count, kRuns / kCount, 6 * 57);  // six standard deviations
    }
  }
}

}  // namespace
}  // namespace puzzle
