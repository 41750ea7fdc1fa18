#include "puzzle/tensor/head_loss.h"

#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "support/expect_close.h"

namespace puzzle {
namespace {

struct Case {
  at::Tensor parent_hidden, parent_head, hidden, head, labels;
};

Case make_case() {
  at::Generator generator = at::detail::createCPUGenerator(3);
  const auto options = at::TensorOptions(at::kDouble);
  Case c{at::randn({7, 5}, generator, options), at::randn({11, 5}, generator, options),
         at::randn({7, 5}, generator, options), at::randn({11, 5}, generator, options),
         at::randint(0, 11, {7}, generator, at::TensorOptions(at::kLong))};
  c.labels[3] = -100;
  return c;
}

struct Reference {
  std::vector<double> kl, nll, parent_nll, agree;
};

// Plain loops in double.
Reference naive(const Case& c) {
  const auto log_probs = [](const at::Tensor& hidden, const at::Tensor& head, std::int64_t n) {
    std::vector<double> logits;
    double most = -1e300;
    for (std::int64_t v = 0; v < head.size(0); ++v) {
      double sum = 0;
      for (std::int64_t d = 0; d < head.size(1); ++d) {
        sum += hidden[n][d].item<double>() * head[v][d].item<double>();
      }
      logits.push_back(sum);
      most = std::max(most, sum);
    }
    double total = 0;
    for (const double x : logits) {
      total += std::exp(x - most);
    }
    for (double& x : logits) {
      x -= most + std::log(total);
    }
    return logits;
  };
  Reference reference;
  for (std::int64_t n = 0; n < c.hidden.size(0); ++n) {
    const auto p = log_probs(c.parent_hidden, c.parent_head, n);
    const auto q = log_probs(c.hidden, c.head, n);
    double kl = 0;
    std::size_t best_p = 0;
    std::size_t best_q = 0;
    for (std::size_t v = 0; v < p.size(); ++v) {
      kl += std::exp(p[v]) * (p[v] - q[v]);
      best_p = p[v] > p[best_p] ? v : best_p;
      best_q = q[v] > q[best_q] ? v : best_q;
    }
    const auto label = c.labels[n].item<std::int64_t>();
    reference.kl.push_back(kl);
    reference.nll.push_back(label < 0 ? 0.0 : -q[static_cast<std::size_t>(label)]);
    reference.parent_nll.push_back(label < 0 ? 0.0 : -p[static_cast<std::size_t>(label)]);
    reference.agree.push_back(best_p == best_q ? 1.0 : 0.0);
  }
  return reference;
}

TEST(HeadLoss, TokenLossesMatchPlainLoops) {
  const Case c = make_case();
  const Reference want = naive(c);
  const HeadInput parent{c.parent_hidden, c.parent_head};
  for (const std::int64_t chunk : {1, 3, 100}) {
    const TokenLosses got = token_losses(&parent, {c.hidden, c.head}, c.labels, chunk);
    EXPECT_CLOSE(got.kl, at::tensor(want.kl), 1e-5);
    EXPECT_CLOSE(got.nll, at::tensor(want.nll), 1e-5);
    EXPECT_CLOSE(got.parent_nll, at::tensor(want.parent_nll), 1e-5);
    EXPECT_CLOSE(got.top1_agree, at::tensor(want.agree), 0);
  }
}

double loss_value(const Case& c, const HeadLossWeights& weights, const at::Tensor& hidden,
                  const at::Tensor& head) {
  Case moved = c;
  moved.hidden = hidden;
  moved.head = head;
  const Reference r = naive(moved);
  double sum = 0;
  for (std::size_t n = 0; n < r.kl.size(); ++n) {
    sum += weights.kl * r.kl[n] + weights.lm * r.nll[n];
  }
  return sum / static_cast<double>(r.kl.size());
}

TEST(HeadLoss, GradientsMatchCentralDifferences) {
  const Case c = make_case();
  for (const HeadLossWeights weights :
       {HeadLossWeights{1.0, 0.0}, HeadLossWeights{0.0, 1.0}, HeadLossWeights{0.7, 0.4}}) {
    const at::Tensor hidden = c.hidden.clone().set_requires_grad(true);
    const at::Tensor head = c.head.clone().set_requires_grad(true);
    const at::Tensor loss =
        head_loss({c.parent_hidden, c.parent_head}, {hidden, head}, c.labels, weights, nullptr, 3);
    EXPECT_NEAR(loss.item<double>(), loss_value(c, weights, c.hidden, c.head), 1e-5);
    (loss * 2.0).backward();
    const double step = 1e-4;
    for (const bool for_head : {false, true}) {
      const at::Tensor& base = for_head ? c.head : c.hidden;
      const at::Tensor gradient = (for_head ? head : hidden).grad();
      for (std::int64_t i = 0; i < base.numel(); i += 4) {
        at::Tensor up = base.clone();
        at::Tensor down = base.clone();
        up.view(-1)[i] += step;
        down.view(-1)[i] -= step;
        const double want =
            2.0 *
            (loss_value(c, weights, for_head ? c.hidden : up, for_head ? up : c.head) -
             loss_value(c, weights, for_head ? c.hidden : down, for_head ? down : c.head)) /
            (2 * step);
        EXPECT_NEAR(gradient.view(-1)[i].item<double>(), want, 2e-5) << "element " << i;
      }
    }
  }
}

TEST(HeadLoss, MixedPrecisionHasTheGradientsOfTheRoundedWeights) {
  const Case c = make_case();
  // What bfloat16 can hold, so that only products and sums are rounded.
  const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); };
  const at::Tensor hidden = rounded(c.hidden).set_requires_grad(true);
  const at::Tensor head = rounded(c.head).set_requires_grad(true);
  const at::Tensor exact_hidden = rounded(c.hidden).set_requires_grad(true);
  const at::Tensor exact_head = rounded(c.head).set_requires_grad(true);
  const HeadLossWeights weights{0.7, 0.4};
  const at::Tensor want = head_loss({rounded(c.parent_hidden), rounded(c.parent_head)},
                                    {exact_hidden, exact_head}, c.labels, weights, nullptr, 3);
  const at::Tensor got = head_loss({rounded(c.parent_hidden), c.parent_head.to(at::kBFloat16)},
                                   {hidden, head.to(at::kBFloat16)}, c.labels, weights, nullptr, 3);
  EXPECT_CLOSE(got, want, 0.01 * want.item<double>());
  want.backward();
  got.backward();
  EXPECT_EQ(head.grad().scalar_type(), at::kFloat);
  for (const auto& [found, expected] :
       {std::pair(hidden.grad(), exact_hidden.grad()), std::pair(head.grad(), exact_head.grad())}) {
    EXPECT_CLOSE(found, expected, 0.02 * expected.abs().max().item<double>());
  }
}

}  // namespace
}  // namespace puzzle
