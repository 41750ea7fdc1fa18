#include "puzzle/tensor/ops.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "support/expect_close.h"

namespace puzzle {
namespace {

at::Tensor noise(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

TEST(Ops, RmsNormMatchesTheFormula) {
  const at::Tensor x = noise({3, 8}, 1);
  const at::Tensor w = noise({8}, 2);
  const at::Tensor got = rms_norm(x, w, 1e-3);
  for (std::int64_t n = 0; n < 3; ++n) {
    double square = 0;
    for (std::int64_t d = 0; d < 8; ++d) {
      square += std::pow(x[n][d].item<double>(), 2) / 8;
    }
    for (std::int64_t d = 0; d < 8; ++d) {
      EXPECT_NEAR(got[n][d].item<double>(),
                  x[n][d].item<double>() / std::sqrt(square + 1e-3) * w[d].item<double>(), 1e-5);
    }
  }
}

TEST(Ops, RotaryTurnsPairsByTheAngleAndGradModeChangesNothing) {
  const at::Tensor x = noise({2, 3, 4, 6}, 3);
  const at::Tensor frequencies = at::tensor({1.0, 0.3, 0.01}, at::TensorOptions(at::kDouble));
  const at::Tensor positions = at::arange(5, 9, at::TensorOptions(at::kLong));
  const RotaryAngles angles =
      make_rotary_angles(frequencies, 1.5, positions, at::kFloat, c10::Device(at::kCPU));
  const at::Tensor got = apply_rotary(x, angles);
  EXPECT_CLOSE(apply_rotary(x.clone().set_requires_grad(true), angles), got, 1e-6);
  for (std::int64_t t = 0; t < 4; ++t) {
    for (std::int64_t e = 0; e < 3; ++e) {
      const double angle = static_cast<double>(5 + t) * frequencies[e].item<double>();
      const double a = x[1][2][t][e].item<double>();
      const double b = x[1][2][t][e + 3].item<double>();
      EXPECT_NEAR(got[1][2][t][e].item<double>(), 1.5 * (a * std::cos(angle) - b * std::sin(angle)),
                  1e-5);
      EXPECT_NEAR(got[1][2][t][e + 3].item<double>(),
                  1.5 * (b * std::cos(angle) + a * std::sin(angle)), 1e-5);
    }
  }
}

// softmax over the keys that `may_look` allows, in double.
at::Tensor naive_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::function<bool(std::int64_t, std::int64_t)>& may_look) {
  at::Tensor out = at::zeros(q.sizes(), at::TensorOptions(at::kDouble));
  const std::int64_t group = q.size(1) / k.size(1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  for (std::int64_t b = 0; b < q.size(0); ++b) {
    for (std::int64_t h = 0; h < q.size(1); ++h) {
      for (std::int64_t t = 0; t < q.size(2); ++t) {
        double total = 0;
        for (std::int64_t s = 0; s < k.size(2); ++s) {
          if (may_look(t, s)) {
            const double weight = std::exp(
                (q[b][h][t].to(at::kDouble) * k[b][h / group][s]).sum().item<double>() * scale);
            total += weight;
            out[b][h][t] += v[b][h / group][s].to(at::kDouble) * weight;
          }
        }
        out[b][h][t] /= total;
      }
    }
  }
  return out;
}

TEST(Ops, AttentionIsCausalGroupedOrMasked) {
  for (const std::int64_t kv_heads : {1, 2, 4}) {
    const at::Tensor q = noise({2, 4, 5, 8}, 4);
    const at::Tensor k = noise({2, kv_heads, 5, 8}, 5);
    const at::Tensor v = noise({2, kv_heads, 5, 8}, 6);
    EXPECT_CLOSE(attention(q, k, v, at::Tensor()),
                 naive_attention(q, k, v, [](auto t, auto s) { return s <= t; }), 1e-5);
    at::Tensor mask = at::ones({5, 5}, at::TensorOptions(at::kBool)).tril();
    mask[4][0] = false;
    EXPECT_CLOSE(
        attention(q, k, v, mask),
        naive_attention(q, k, v, [](auto t, auto s) { return s <= t && !(t == 4 && s == 0); }),
        1e-5);
    EXPECT_CLOSE(attention(q, repeat_heads(k, 4), repeat_heads(v, 4), mask),
                 attention(q, k, v, mask), 1e-6);
    EXPECT_CLOSE(attention(q.narrow(2, 4, 1), k, v, at::Tensor()),
                 naive_attention(q.narrow(2, 4, 1), k, v, [](auto, auto) { return true; }), 1e-5);
  }
}

TEST(Ops, SwigluMatchesTheFormulaWithAndWithoutGradients) {
  const at::Tensor gate = noise({10}, 7);
  const at::Tensor up = noise({10}, 8);
  const at::Tensor got = swiglu(gate, up);
  EXPECT_CLOSE(swiglu(gate.clone().set_requires_grad(true), up), got, 1e-6);
  for (std::int64_t i = 0; i < 10; ++i) {
    const double g = gate[i].item<double>();
    EXPECT_NEAR(got[i].item<double>(), g / (1 + std::exp(-g)) * up[i].item<double>(), 1e-6);
  }
}

}  // namespace
}  // namespace puzzle
