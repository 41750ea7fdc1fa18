#include "puzzle/train/checkpointed.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

struct Net {
  at::Tensor first = make(1);
  at::Tensor second = make(2);

  static at::Tensor make(std::uint64_t seed) {
    return at::randn({5, 5}, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat))
        .set_requires_grad(true);
  }
  [[nodiscard]] at::Tensor run(at::Tensor x, bool checkpoint) const {
    for (const at::Tensor& weight : {first, second}) {
      const auto layer = [weight](const at::Tensor& h) { return h + at::silu(h.matmul(weight)); };
      x = checkpoint ? checkpointed(layer, x, {weight}) : layer(x);
    }
    return x;
  }
};

TEST(Checkpointed, GivesTheGradientsOfThePlainCallBitForBit) {
  const at::Tensor x =
      at::randn({3, 5}, at::detail::createCPUGenerator(9), at::TensorOptions(at::kFloat));
  for (const bool input_needs_gradient : {false, true}) {
    const Net plain;
    const Net saved;
    const at::Tensor x1 = x.clone().set_requires_grad(input_needs_gradient);
    const at::Tensor x2 = x.clone().set_requires_grad(input_needs_gradient);
    const at::Tensor y1 = plain.run(x1, false);
    const at::Tensor y2 = saved.run(x2, true);
    EXPECT_TRUE(at::equal(y1, y2));
    y1.square().sum().backward();
    y2.square().sum().backward();
    EXPECT_TRUE(at::equal(plain.first.grad(), saved.first.grad()));
    EXPECT_TRUE(at::equal(plain.second.grad(), saved.second.grad()));
    if (input_needs_gradient) {
      EXPECT_TRUE(at::equal(x1.grad(), x2.grad()));
    }
  }
}

TEST(Checkpointed, RunsTheLayerAgainOnlyInTheBackwardPass) {
  int calls = 0;
  const at::Tensor weight = Net::make(3);
  const auto layer = [&](const at::Tensor& h) {
    ++calls;
    return h.matmul(weight);
  };
  const at::Tensor y = checkpointed(layer, at::ones({2, 5}), {weight});
  EXPECT_EQ(calls, 1);
  y.sum().backward();
  EXPECT_EQ(calls, 2);
  const c10::NoGradGuard no_grad;
  (void)checkpointed(layer, at::ones({2, 5}), {weight});
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace puzzle
