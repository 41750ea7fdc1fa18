#include "puzzle/model/ffn_order.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/naive_solve.h"

namespace puzzle {
namespace {

constexpr double kTestLambda = 1e-3;

struct OrderCase {
  at::Tensor xx, down;  // [F, F], [D, F]
};

// Correlated channels of different strength.
OrderCase make_order_case(std::int64_t width, std::int64_t hidden, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto options = at::TensorOptions(at::kDouble);
  const at::Tensor sources = at::randn({4 * width, width}, generator, options);
  const at::Tensor mixing = at::randn({width, width}, generator, options) * 0.2 +
                            at::diag(at::rand({width}, generator, options) * 2);
  const at::Tensor x = sources.matmul(mixing);
  return {x.t().matmul(x), at::randn({hidden, width}, generator, options)};
}

std::vector<std::int64_t> to_list(const at::Tensor& channels) {
  const at::Tensor flat = channels.contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

// The down projection [w, D] (transposed) on `kept`, from G and the parent's, and what is lost:
// tr((W − W_parent)·G·(W − W_parent)ᵀ).
struct NaiveRefit {
  test::Matrix down_wD;
  double loss = 0.0;
};

NaiveRefit naive_refit(const OrderCase& c, const std::vector<std::int64_t>& kept) {
  test::Matrix g = test::to_matrix(c.xx);
  test::add_ridge(g, kTestLambda);
  const test::Matrix down = test::to_matrix(c.down);
  const std::size_t width = g.size();
  const std::size_t hidden = down.size();
  test::Matrix block(kept.size(), std::vector<double>(kept.size()));
  test::Matrix right(kept.size(), std::vector<double>(hidden, 0.0));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const auto row = static_cast<std::size_t>(kept[i]);
    for (std::size_t j = 0; j < kept.size(); ++j) {
      block[i][j] = g[row][static_cast<std::size_t>(kept[j])];
    }
    for (std::size_t d = 0; d < hidden; ++d) {
      for (std::size_t f = 0; f < width; ++f) {
        right[i][d] += g[row][f] * down[d][f];
      }
    }
  }
  NaiveRefit refit{test::naive_solve(block, right), 0.0};
  for (std::size_t d = 0; d < hidden; ++d) {
    std::vector<double> difference(width);
    for (std::size_t f = 0; f < width; ++f) {
      difference[f] = -down[d][f];
    }
    for (std::size_t i = 0; i < kept.size(); ++i) {
      difference[static_cast<std::size_t>(kept[i])] += refit.down_wD[i][d];
    }
    for (std::size_t i = 0; i < width; ++i) {
      for (std::size_t j = 0; j < width; ++j) {
        refit.loss += difference[i] * g[i][j] * difference[j];
      }
    }
  }
  return refit;
}

TEST(FfnOrder, EveryWidthIsTheRidgeRefitOnItsChannels) {
  const OrderCase c = make_order_case(100, 6, 1);  // groups of 3, 2 and 1
  const FfnOrder order = order_ffn_channels(c.xx, c.down, kTestLambda, "test");
  const std::vector<std::int64_t> channels = to_list(order.channels);
  EXPECT_EQ(std::set<std::int64_t>(channels.begin(), channels.end()).size(), 100U);
  EXPECT_EQ(*std::ranges::max_element(channels), 99);
  for (const std::int64_t width : {1, 10, 31, 50, 75, 99}) {
    const std::vector<std::int64_t> kept(channels.begin(), channels.begin() + width);
    EXPECT_CLOSE(refit_down(order, width), test::to_tensor(naive_refit(c, kept).down_wD).t(), 1e-9)
        << "width " << width;
  }
}

TEST(FfnOrder, FullWidthIsTheParent) {
  const OrderCase c = make_order_case(70, 5, 2);
  const FfnOrder order = order_ffn_channels(c.xx, c.down, kTestLambda, "test");
  EXPECT_CLOSE(refit_down(order, 70), c.down.index_select(1, order.channels), 1e-10);
}

TEST(FfnOrder, GivesUpTheChannelThatCostsLeast) {
  const OrderCase c = make_order_case(12, 4, 3);  // one at a time
  std::vector<std::int64_t> alive(12);
  for (std::size_t i = 0; i < alive.size(); ++i) {
    alive[i] = static_cast<std::int64_t>(i);
  }
  std::vector<std::int64_t> given_up;
  while (alive.size() > 1) {
    double least = 1e300;
    std::size_t cheapest = 0;
    for (std::size_t i = 0; i < alive.size(); ++i) {
      std::vector<std::int64_t> kept = alive;
      kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(i));
      const double loss = naive_refit(c, kept).loss;
      if (loss < least) {
        least = loss;
        cheapest = i;
      }
    }
    given_up.push_back(alive[cheapest]);
    alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(cheapest));
  }
  given_up.push_back(alive.front());
  std::ranges::reverse(given_up);
  EXPECT_EQ(to_list(order_ffn_channels(c.xx, c.down, kTestLambda, "test").channels), given_up);
}

TEST(FfnOrder, TheFirstGroupIsThatOfTheCheapestChannels) {
  const OrderCase c = make_order_case(100, 4, 4);
  std::vector<std::pair<double, std::int64_t>> costs;
  for (std::int64_t left_out = 0; left_out < 100; ++left_out) {
    std::vector<std::int64_t> kept;
    for (std::int64_t channel = 0; channel < 100; ++channel) {
      if (channel != left_out) {
        kept.push_back(channel);
      }
    }
    costs.emplace_back(naive_refit(c, kept).loss, left_out);
  }
  std::ranges::sort(costs);
  const std::vector<std::int64_t> channels =
      to_list(order_ffn_channels(c.xx, c.down, kTestLambda, "test").channels);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(channels[99 - i], costs[i].second) << i;
  }
}

TEST(FfnOrder, ChannelsThatAreNeverActiveGoFirst) {
  OrderCase c = make_order_case(40, 4, 5);
  for (const std::int64_t dead : {7, 20}) {
    c.xx.select(0, dead).zero_();
    c.xx.select(1, dead).zero_();
  }
  const std::vector<std::int64_t> channels =
      to_list(order_ffn_channels(c.xx, c.down, kTestLambda, "test").channels);
  EXPECT_EQ((std::set<std::int64_t>{channels[38], channels[39]}), (std::set<std::int64_t>{7, 20}));
}

// Half of the channels are sums of the other half.
OrderCase make_dependent_case(std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto options = at::TensorOptions(at::kDouble);
  const at::Tensor sources = at::randn({400, 20}, generator, options);
  const at::Tensor x = at::cat({sources, sources.mm(at::randn({20, 20}, generator, options))}, 1);
  return {x.t().mm(x), at::randn({4, 40}, generator, options)};
}

// Where G itself has no Cholesky factor (lambda 0) and where only the elimination runs into
// rounding (1e-15, in some of the cases), the ridge is raised until the order is sound: 20 channels
// carry everything.
TEST(FfnOrder, RaisesTheRidgeUntilTheEliminationSucceeds) {
  for (const double lambda : {0.0, 1e-15}) {
    int raised = 0;
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const OrderCase c = make_dependent_case(seed);
      const FfnOrder order = order_ffn_channels(c.xx, c.down, lambda, "test");
      raised += order.lambda > lambda ? 1 : 0;
      EXPECT_LE(order.lambda, 1e-8) << seed;
      const std::vector<std::int64_t> channels = to_list(order.channels);
      EXPECT_EQ(std::set<std::int64_t>(channels.begin(), channels.end()).size(), 40U) << seed;
      at::Tensor difference = c.down.neg();
      difference.index_add_(1, order.channels.narrow(0, 0, 20), refit_down(order, 20));
      const auto energy = [&](const at::Tensor& down_DF) {
        return down_DF.mm(c.xx).mul(down_DF).sum().item<double>();
      };
      EXPECT_LT(std::abs(energy(difference)), 1e-4 * energy(c.down)) << seed;
    }
    EXPECT_GT(raised, lambda > 0.0 ? 0 : 39) << lambda;
  }
}

TEST(FfnOrder, SumsThatAreNotFiniteAreRefused) {
  const OrderCase c = make_order_case(12, 4, 6);
  c.xx[3][5] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_PUZZLE_ERROR((void)order_ffn_channels(c.xx, c.down, kTestLambda, "layer 3"),
                      ErrorKind::kNumeric, "layer 3: activations of the calibration tokens");
}

}  // namespace
}  // namespace puzzle
