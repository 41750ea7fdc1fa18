#include "puzzle/tensor/head_gradients.h"

#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

constexpr std::int64_t kTokens = 9;
constexpr std::int64_t kSamples = 3;

struct HeadCase {
  at::Tensor hidden, head, parent_hidden, parent_head, uniforms;
};

HeadCase head_case() {
  at::Generator generator = at::detail::createCPUGenerator(5);
  const auto options = at::TensorOptions(at::kFloat);
  return {at::randn({kTokens, 5}, generator, options), at::randn({13, 5}, generator, options),
          at::randn({kTokens, 5}, generator, options), at::randn({13, 5}, generator, options),
          at::rand({kTokens, kSamples}, generator, options)};
}

std::vector<double> probabilities(const at::Tensor& hidden_D, const at::Tensor& head_VD) {
  std::vector<double> p;
  double sum = 0.0;
  for (std::int64_t v = 0; v < head_VD.size(0); ++v) {
    double logit = 0.0;
    for (std::int64_t d = 0; d < head_VD.size(1); ++d) {
      logit += hidden_D[d].item<double>() * head_VD[v][d].item<double>();
    }
    p.push_back(std::exp(logit));
    sum += p.back();
  }
  for (double& x : p) {
    x /= sum;
  }
  return p;
}

std::size_t drawn(const std::vector<double>& p, double uniform) {
  double sum = 0.0;
  for (std::size_t v = 0; v < p.size(); ++v) {
    sum += p[v];
    if (uniform < sum) {
      return v;
    }
  }
  return p.size() - 1;
}

TEST(HeadGradients, AreThoseOfTheDrawnLabels) {
  const HeadCase c = head_case();
  const HeadGradients got = head_gradients({c.hidden, c.head}, c.uniforms, nullptr, 4);
  ASSERT_EQ(got.sampled_SND.sizes(), (std::vector<std::int64_t>{kSamples, kTokens, 5}));
  EXPECT_FALSE(got.kl_ND.defined());
  bool differs = false;
  for (std::int64_t n = 0; n < kTokens; ++n) {
    const std::vector<double> q = probabilities(c.hidden[n], c.head);
    for (std::int64_t s = 0; s < kSamples; ++s) {
      const auto label = drawn(q, c.uniforms[n][s].item<double>());
      differs = differs || label != drawn(q, c.uniforms[n][0].item<double>());
      for (std::int64_t d = 0; d < 5; ++d) {
        double expected = c.head[static_cast<std::int64_t>(label)][d].item<double>();
        for (std::size_t v = 0; v < q.size(); ++v) {
          expected -= q[v] * c.head[static_cast<std::int64_t>(v)][d].item<double>();
        }
        EXPECT_NEAR(got.sampled_SND[s][n][d].item<double>(), expected, 1e-5);
      }
    }
  }
  EXPECT_TRUE(differs);
}

TEST(HeadGradients, OfTheKlAreItsDifferences) {
  const HeadCase c = head_case();
  const HeadInput parent{c.parent_hidden, c.parent_head};
  const HeadGradients got = head_gradients({c.hidden, c.head}, c.uniforms, &parent, 2);
  const auto kl = [&](const at::Tensor& hidden, std::int64_t n) {
    const std::vector<double> p = probabilities(c.parent_hidden[n], c.parent_head);
    const std::vector<double> q = probabilities(hidden, c.head);
    double sum = 0.0;
    for (std::size_t v = 0; v < p.size(); ++v) {
      sum += p[v] * std::log(p[v] / q[v]);
    }
    return sum;
  };
  for (std::int64_t n = 0; n < kTokens; ++n) {
    EXPECT_NEAR(got.kl_N[n].item<double>(), kl(c.hidden[n], n), 1e-5);
    for (std::int64_t d = 0; d < 5; ++d) {
      constexpr double kStep = 1e-5;
      at::Tensor up = c.hidden[n].to(at::kDouble).clone();
      at::Tensor down = up.clone();
      up[d] += kStep;
      down[d] -= kStep;
      EXPECT_NEAR(got.kl_ND[n][d].item<double>(), (kl(up, n) - kl(down, n)) / (2 * kStep), 1e-5);
    }
  }
}

TEST(HeadGradients, LabelsFollowTheModelsProbabilities) {
  const HeadCase c = head_case();
  const at::Tensor hidden = c.hidden.narrow(0, 0, 1);
  constexpr std::int64_t kDraws = 4000;
  at::Generator generator = at::detail::createCPUGenerator(6);
  const at::Tensor uniforms = at::rand({1, kDraws}, generator, at::TensorOptions(at::kFloat));
  const HeadGradients got = head_gradients({hidden, c.head}, uniforms, nullptr);
  // The mean of a log-probability's gradient over its own labels is zero; each is about 1.
  EXPECT_LT(got.sampled_SND.mean(0).abs().max().item<double>(), 0.1);
  EXPECT_GT(got.sampled_SND.abs().mean().item<double>(), 0.3);
}

}  // namespace
}  // namespace puzzle
