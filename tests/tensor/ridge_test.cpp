#include "puzzle/tensor/ridge.h"

#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/naive_solve.h"

namespace puzzle {
namespace {

struct RidgeCase {
  at::Tensor x, y, weights;  // [6, 5, 7], [6, 5, 3], [6, 5]
};

RidgeCase make_ridge_case(c10::ScalarType type) {
  at::Generator generator = at::detail::createCPUGenerator(5);
  const auto options = at::TensorOptions(at::kDouble);
  const at::Tensor x = at::randn({6, 5, 7}, generator, options);
  const at::Tensor noise = at::randn({6, 5, 3}, generator, options);
  return {x.to(type), (x.narrow(2, 0, 3) * 2 + noise).to(type),
          at::rand({6, 5}, generator, options).add_(0.1)};
}

std::vector<double> to_vector(const at::Tensor& weights) {
  const at::Tensor flat = weights.flatten().contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

Gram gram_of(const RidgeCase& c) {
  Gram gram(7, 3, at::kCPU);
  gram.add(c.x.narrow(0, 0, 2), c.y.narrow(0, 0, 2), c.weights.narrow(0, 0, 2));
  gram.add(c.x.narrow(0, 2, 4), c.y.narrow(0, 2, 4), c.weights.narrow(0, 2, 4));
  return gram;
}

TEST(Ridge, SumsAreThoseOfPlainLoops) {
  const RidgeCase c = make_ridge_case(at::kDouble);
  const Gram gram = gram_of(c);
  const auto x = test::to_matrix(c.x.flatten(0, 1));
  const auto y = test::to_matrix(c.y.flatten(0, 1));
  const auto weights = to_vector(c.weights);
  EXPECT_CLOSE(gram.xx(), test::to_tensor(test::naive_products(x, x, weights)), 1e-12);
  EXPECT_CLOSE(gram.xy(), test::to_tensor(test::naive_products(x, y, weights)), 1e-12);
  EXPECT_TRUE(gram.xx().equal(gram.xx().t()));

  Gram plain(7, 0, at::kCPU);
  plain.add(c.x, at::Tensor(), at::Tensor());
  EXPECT_CLOSE(plain.xx(),
               test::to_tensor(test::naive_products(x, x, std::vector<double>(30, 1.0))), 1e-12);
}

TEST(Ridge, SumsOfManyBatchesKeepWhatSinglePrecisionWouldLose) {
  // 1 + 1e-9 · 1000 in fp32 stays 1.
  Gram gram(1, 0, at::kCPU);
  gram.add(at::ones({1, 1}), at::Tensor(), at::Tensor());
  for (int i = 0; i < 1000; ++i) {
    gram.add(at::full({1, 1}, 3.1622776e-5F), at::Tensor(), at::Tensor());
  }
  EXPECT_NEAR(gram.xx().item<double>() - 1.0, 1e-6, 1e-9);
}

TEST(Ridge, SolveIsTheNormalEquations) {
  const RidgeCase c = make_ridge_case(at::kDouble);
  const RidgeFit fit = solve_ridge(gram_of(c), 0.05, "test");
  EXPECT_CLOSE(fit.weight,
               test::naive_ridge(c.x.flatten(0, 1), c.y.flatten(0, 1), to_vector(c.weights), 0.05),
               1e-10);
  EXPECT_EQ(fit.lambda, 0.05);

  const RidgeCase single = make_ridge_case(at::kFloat);
  EXPECT_CLOSE(solve_ridge(gram_of(single), 0.05, "test").weight, fit.weight, 1e-5);
}

TEST(Ridge, RefitFitsTheResidualOfTheCurrentWeights) {
  const RidgeCase c = make_ridge_case(at::kDouble);
  at::Generator generator = at::detail::createCPUGenerator(6);
  const at::Tensor current = at::randn({3, 7}, generator, at::TensorOptions(at::kDouble));
  const at::Tensor x = c.x.flatten(0, 1);
  const at::Tensor residual = c.y.flatten(0, 1) - x.matmul(current.t());
  const at::Tensor delta = test::naive_ridge(x, residual, to_vector(c.weights), 0.2);
  EXPECT_CLOSE(refit_ridge(gram_of(c), current, 0.2, "test").weight, current + delta, 1e-10);
  EXPECT_CLOSE(refit_ridge(gram_of(c), current, 1e3, "test").weight, current, 0.05);
}

TEST(Ridge, RefitKeepsWeightsThatFitAlready) {
  RidgeCase c = make_ridge_case(at::kDouble);
  const at::Tensor current = at::arange(21, at::kDouble).view({3, 7});
  c.y = c.x.matmul(current.t());
  EXPECT_CLOSE(refit_ridge(gram_of(c), current, 1e-3, "test").weight, current, 1e-10);
}

TEST(Ridge, RaisesTheRidgeUntilTheSumsArePositiveDefinite) {
  at::Tensor xx = at::eye(4, at::kDouble);
  xx[2][2] = 0.0;
  const RidgeFactor raised = factor_with_ridge(xx, 0.0, "test");
  EXPECT_EQ(raised.lambda, 1e-10);
  EXPECT_NEAR(raised.ridge, 0.75e-10, 1e-20);
  xx[2][2] = -0.01;  // λ·0.7475 must exceed 0.01
  EXPECT_NEAR(factor_with_ridge(xx, 1e-3, "test").lambda, 0.1, 1e-12);
  EXPECT_EQ(factor_with_ridge(at::eye(4, at::kDouble), 1e-3, "test").lambda, 1e-3);
}

TEST(Ridge, FeaturesThatAreAllZeroGiveZeroWeights) {
  Gram gram(3, 2, at::kCPU);
  gram.add(at::zeros({8, 3}), at::ones({8, 2}), at::Tensor());
  EXPECT_CLOSE(solve_ridge(gram, 1e-3, "test").weight, at::zeros({2, 3}), 0.0);
}

TEST(Ridge, RefusesWhatNoRidgeHelpsNamingThePlace) {
  EXPECT_PUZZLE_ERROR((void)factor_with_ridge(at::eye(3, at::kDouble) * -1e6, 1e-3, "layer 7"),
                      ErrorKind::kNumeric, "layer 7: the sums");
  at::Tensor xx = at::eye(3, at::kDouble);
  xx[0][1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_PUZZLE_ERROR((void)factor_with_ridge(xx, 1e-3, "layer 7"), ErrorKind::kNumeric,
                      "layer 7: activations of the calibration tokens are not finite");
}

TEST(Ridge, VisitsTheSumsOfAllTokens) {
  const RidgeCase c = make_ridge_case(at::kDouble);
  Gram first(7, 3, at::kCPU);
  Gram second(7, 3, at::kCPU);
  first.add(c.x.narrow(0, 0, 4), c.y.narrow(0, 0, 4), c.weights.narrow(0, 0, 4));
  second.add(c.x.narrow(0, 4, 2), c.y.narrow(0, 4, 2), c.weights.narrow(0, 4, 2));
  std::vector<at::Tensor> others;
  second.visit_sums([&](at::Tensor& sum) { others.push_back(sum); });
  std::size_t next = 0;
  first.visit_sums([&](at::Tensor& sum) { sum.add_(others[next++]); });
  EXPECT_EQ(next, 2U);
  EXPECT_CLOSE(first.xx(), gram_of(c).xx(), 1e-12);
  EXPECT_CLOSE(first.xy(), gram_of(c).xy(), 1e-12);
}

}  // namespace
}  // namespace puzzle
