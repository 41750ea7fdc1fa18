#include "puzzle/model/nested_ffn.h"

#include <cstdint>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/model/decoder.h"
#include "puzzle/model/initialize.h"
#include "support/expect_close.h"
#include "support/naive_solve.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

constexpr double kNestedLambda = 1e-2;

// An FFN of width 96 with biases, its activations on random inputs, and the order that follows.
struct NestedCase {
  explicit NestedCase(double lambda = kNestedLambda) {
    ModelSpec spec = test::tiny_spec(1);
    spec.mlp_bias = true;
    ffn = random_model(spec, 5).layers[0].ffn;
    xn = at::randn({40, 7, 64}, at::detail::createCPUGenerator(6), at::TensorOptions(at::kFloat));
    features = ffn_features(ffn, xn).flatten(0, 1).to(at::kDouble);
    order = order_ffn_channels(features.t().matmul(features), ffn.down, lambda, "test");
  }
  // The refit on the first `width` channels by the normal equations,
  // W_w·G_ww = W·G_:w with the ridge of all channels, [D, width].
  [[nodiscard]] at::Tensor naive_down(std::int64_t width) const {
    const at::Tensor x = features.index_select(1, order.channels);
    const test::Matrix rows = test::to_matrix(x);
    test::Matrix gram = test::naive_products(rows, rows, std::vector<double>(rows.size(), 1.0));
    (void)test::add_ridge(gram, kNestedLambda);
    const at::Tensor g = test::to_tensor(gram);
    const at::Tensor wanted = ffn.down.index_select(1, order.channels).to(at::kDouble).matmul(g);
    const at::Tensor block = g.narrow(0, 0, width).narrow(1, 0, width);
    return at::matmul(wanted.narrow(1, 0, width), at::inverse(block));
  }

  FfnWeights ffn;
  at::Tensor xn, features;
  FfnOrder order;
};

TEST(NestedFfn, EveryWidthHasItsRefit) {
  const NestedCase c;
  const NestedFfn nested = nest_ffn(c.ffn, c.order, 80);
  EXPECT_EQ(nested.basis.numel(), 80 * 81 / 2);
  for (const std::int64_t width : {1, 7, 32, 80}) {
    const FfnWeights weights = ffn_of_width(nested, width);
    EXPECT_EQ(weights.spec, FfnSpec::swiglu(width));
    EXPECT_EQ(weights.down.scalar_type(), at::kFloat);
    EXPECT_CLOSE(weights.down, c.naive_down(width), 1e-5);
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t channel = c.order.channels[i].item<std::int64_t>();
      ASSERT_TRUE(weights.gate[i].equal(c.ffn.gate[channel]));
      ASSERT_TRUE(weights.up_bias[i].equal(c.ffn.up_bias[channel]));
    }
    EXPECT_TRUE(weights.down_bias.equal(c.ffn.down_bias));
  }
}

// So small a ridge that fp32 would not do for the basis.
TEST(NestedFfn, ATinyRidgeKeepsDoublePrecision) {
  const NestedCase c(1e-10);
  const NestedFfn nested = nest_ffn(c.ffn, c.order, 96);
  EXPECT_EQ(nested.basis.scalar_type(), at::kDouble);
  EXPECT_EQ(nested.whole.down.scalar_type(), at::kDouble);
  const FfnWeights whole = ffn_of_width(nested, 96);
  EXPECT_EQ(whole.down.scalar_type(), at::kFloat);
  EXPECT_CLOSE(whole.down, c.ffn.down.index_select(1, c.order.channels), 1e-6);
  const NestedFfn floats = in_one_type(nested);
  EXPECT_EQ(floats.basis.scalar_type(), at::kFloat);
  EXPECT_EQ(floats.whole.down.scalar_type(), at::kFloat);
}

TEST(NestedFfn, OutputsOfSeveralWidthsAreThoseOfEach) {
  const c10::NoGradGuard no_grad;
  const NestedCase c;
  NestedFfn prefixes{c.ffn, at::Tensor()};  // without a basis the down projection is cut
  for (const NestedFfn& nested : {nest_ffn(c.ffn, c.order, 80), prefixes}) {
    const std::vector<std::int64_t> widths = {5, 32, 80};
    std::size_t seen = 0;
    NestedForward(nested).visit(c.xn, widths, [&](std::size_t index, const at::Tensor& y) {
      EXPECT_EQ(index, seen++);
      const FfnWeights weights = ffn_of_width(nested, widths[index]);
      EXPECT_CLOSE(y, ffn_output(weights, ffn_features(weights, c.xn)), 1e-5);
    });
    EXPECT_EQ(seen, widths.size());
  }
  EXPECT_TRUE(ffn_of_width(prefixes, 32).down.equal(c.ffn.down.narrow(1, 0, 32)));
}

TEST(NestedFfn, TrianglesAreRowsUpToTheDiagonal) {
  const at::Tensor square = at::arange(16, at::TensorOptions(at::kFloat)).view({4, 4});
  const at::Tensor packed = pack_triangle(square);
  const std::vector<float> want = {0, 4, 5, 8, 9, 10, 12, 13, 14, 15};
  ASSERT_EQ(packed.numel(), std::ssize(want));
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(packed[static_cast<std::int64_t>(i)].item<float>(), want[i]) << i;
  }
  EXPECT_TRUE(unpack_triangle(packed, 4).equal(square.tril()));
  EXPECT_TRUE(unpack_triangle(packed.narrow(0, 0, 3), 2)
                  .equal(square.tril().narrow(0, 0, 2).narrow(1, 0, 2)));
}

}  // namespace
}  // namespace puzzle
