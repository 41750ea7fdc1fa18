#include "puzzle/train/adamw.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "puzzle/base/error.h"
#include "support/expect_close.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

at::Tensor leaf(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat))
      .set_requires_grad(true);
}

at::Tensor gradient_of_step(at::IntArrayRef shape, int step) {
  return at::randn(shape, at::detail::createCPUGenerator(100 + step),
                   at::TensorOptions(at::kFloat));
}

struct Naive {
  double weight, m = 0, v = 0;
  void step(double gradient, int count, double lr, const AdamWOptions& o, double decay) {
    weight -= lr * decay * weight;
    m = o.beta1 * m + (1 - o.beta1) * gradient;
    v = o.beta2 * v + (1 - o.beta2) * gradient * gradient;
    weight -= lr * (m / (1 - std::pow(o.beta1, count))) /
              (std::sqrt(v / (1 - std::pow(o.beta2, count))) + o.eps);
  }
};

TEST(AdamW, MatchesTheFormulaWithDecayOnMatricesAndClipping) {
  const AdamWOptions options{.weight_decay = 0.1, .clip_norm = 0.5};
  AdamW optimiser({{"matrix", leaf({2, 2}, 1)}, {"norm", leaf({3}, 2)}}, options);
  const at::Tensor matrix = optimiser.parameters()[0].tensor;
  const at::Tensor norm = optimiser.parameters()[1].tensor;
  std::vector<Naive> want;
  for (const at::Tensor& tensor : {matrix, norm}) {
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      want.push_back({tensor.view(-1)[i].item<double>()});
    }
  }
  for (int step = 1; step <= 4; ++step) {
    const at::Tensor g0 = gradient_of_step({2, 2}, step);
    const at::Tensor g1 = gradient_of_step({3}, step);
    const double total = std::sqrt((g0 * g0).sum().item<double>() + (g1 * g1).sum().item<double>());
    const double scale = std::min(1.0, 0.5 / (total + 1e-6));
    matrix.mutable_grad() = g0.clone();
    norm.mutable_grad() = g1.clone();
    EXPECT_NEAR(optimiser.step(0.01).item<double>(), total, 1e-5);
    for (std::size_t i = 0; i < 7; ++i) {
      const double gradient = i < 4 ? g0.view(-1)[static_cast<std::int64_t>(i)].item<double>()
                                    : g1[static_cast<std::int64_t>(i) - 4].item<double>();
      want[i].step(gradient * scale, step, 0.01, options, i < 4 ? 0.1 : 0.0);
    }
  }
  for (std::size_t i = 0; i < 7; ++i) {
    const double got = i < 4 ? matrix.view(-1)[static_cast<std::int64_t>(i)].item<double>()
                             : norm[static_cast<std::int64_t>(i) - 4].item<double>();
    EXPECT_NEAR(got, want[i].weight, 1e-5) << i;
  }
}

TEST(AdamW, ResumesToTheSameBits) {
  const auto run = [](AdamW& optimiser, int from, int to) {
    for (int step = from; step < to; ++step) {
      optimiser.parameters()[0].tensor.mutable_grad() = gradient_of_step({4, 4}, step);
      (void)optimiser.step(0.01);
    }
  };
  AdamW whole({{"w", leaf({4, 4}, 5)}}, {});
  run(whole, 0, 6);
  AdamW first({{"w", leaf({4, 4}, 5)}}, {});
  run(first, 0, 3);
  AdamW second({{"w", first.parameters()[0].tensor.detach().clone().set_requires_grad(true)}}, {});
  second.load_state(first.state(), 3);
  run(second, 3, 6);
  EXPECT_TRUE(at::equal(second.parameters()[0].tensor, whole.parameters()[0].tensor));
}

TEST(AdamW, RefusesTheStateOfAnotherModel) {
  AdamW optimiser({{"w", leaf({4, 4}, 5)}}, {});
  EXPECT_PUZZLE_ERROR(optimiser.load_state({}, 1), ErrorKind::kFormat, "exp_avg/w");
}

}  // namespace
}  // namespace puzzle
