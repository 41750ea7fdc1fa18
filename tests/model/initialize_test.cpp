#include "puzzle/model/initialize.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/model/ffn_order.h"
#include "puzzle/tensor/ridge.h"
#include "support/expect_close.h"
#include "support/naive_solve.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

struct BiasSetting {
  bool attention = false;
  bool output = false;
  bool mlp = false;
  bool qk_norm = false;
};
const std::vector<BiasSetting> kBiasSettings = {
    {}, {true, false, false}, {true, true, false}, {false, false, true}, {true, true, true, true}};

// One layer of a small model and 12 windows of 16 tokens; 4 query heads, 4 KV heads, width 96.
struct InitCase {
  explicit InitCase(const BiasSetting& bias) : InitCase(spec_of(bias)) {}
  explicit InitCase(const ModelSpec& spec)
      : model(random_model(spec, 11)),
        geometry(spec),
        pass(make_pass(geometry, 16, at::kFloat, at::kCPU)) {
    at::Generator generator = at::detail::createCPUGenerator(12);
    x = at::randn({12, 16, 64}, generator, at::TensorOptions(at::kFloat));
    parent_pass = run_parent_layer(layer(), geometry, x, pass);
    weights = at::rand({12, 16}, generator, at::TensorOptions(at::kFloat)).add_(0.05);
  }
  static ModelSpec spec_of(const BiasSetting& bias) {
    ModelSpec spec = test::tiny_spec(1);
    spec.attention_bias = bias.attention;
    spec.attention_output_bias = bias.output;
    spec.mlp_bias = bias.mlp;
    spec.qk_norm = bias.qk_norm;
    return spec;
  }
  [[nodiscard]] const LayerWeights& layer() const { return model.layers[0]; }
  [[nodiscard]] LayerVariants make(InitMethod method, const at::Tensor& token_weights) const {
    const LayerSpace space{{AttentionSpec::gqa(4), AttentionSpec::gqa(2), AttentionSpec::gqa(1),
                            AttentionSpec::linear(), AttentionSpec::none()},
                           {FfnSpec::swiglu(96), FfnSpec::swiglu(64), FfnSpec::swiglu(32),
                            FfnSpec::linear(), FfnSpec::none()}};
    LayerInitializer initializer(model.spec, layer(), geometry, space, {method, 1e-2});
    initializer.add(parent_pass, pass, token_weights);
    return initializer.solve("test");
  }
  [[nodiscard]] std::vector<double> weight_list() const {
    const at::Tensor flat = weights.flatten().to(at::kDouble).contiguous();
    return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
  }

  ModelWeights model;
  Geometry geometry;
  PassContext pass;
  at::Tensor x, weights;
  ParentPass parent_pass;
};

FfnWeights width_of(const LayerVariants& variants, std::int64_t width) {
  return ffn_of_width(variants.nested.value(), width);
}

at::Tensor rows(const at::Tensor& x) { return x.flatten(0, 1); }

TEST(Initialize, ParentPassIsTheLayer) {
  for (const BiasSetting& bias : kBiasSettings) {
    const InitCase c(bias);
    EXPECT_TRUE(c.parent_pass.output.equal(apply_layer(c.layer(), c.geometry, c.x, c.pass)));
    EXPECT_CLOSE(c.x + c.parent_pass.attention_y + c.parent_pass.ffn_y, c.parent_pass.output, 1e-5);
  }
}

TEST(Initialize, MakesEveryVariantButTheParentsOwnAndNone) {
  for (const InitMethod method : {InitMethod::kLeastSquares, InitMethod::kPaper}) {
    for (const BiasSetting& bias : kBiasSettings) {
      const InitCase c(bias);
      const LayerVariants variants = c.make(method, at::Tensor());
      ASSERT_EQ(variants.attention.size(), 3U);
      ASSERT_EQ(variants.ffn.size(), 1U);
      ASSERT_EQ(variants.widths, (std::vector<std::int64_t>{32, 64}));
      std::map<FfnSpec, FfnWeights> ffns = variants.ffn;
      for (const std::int64_t width : variants.widths) {
        ffns[FfnSpec::swiglu(width)] = width_of(variants, width);
      }
      for (const auto& [spec, weights] : variants.attention) {
        EXPECT_EQ(weights.spec, spec);
        std::size_t count = 0;
        visit_tensors(weights,
                      ConstTensorVisitor([&](const std::string& name, const at::Tensor& t) {
                        const auto shapes = attention_shapes(c.model.spec, spec);
                        ASSERT_LT(count, shapes.size());
                        for (const NamedShape& shape : shapes) {
                          if (shape.name == name) {
                            EXPECT_EQ(t.sizes(), at::IntArrayRef(shape.shape)) << name;
                            EXPECT_EQ(t.scalar_type(), at::kFloat);
                            EXPECT_TRUE(name != "self_attn.k_norm.weight" ||
                                        t.equal(c.layer().attention.k_norm));
                            ++count;
                          }
                        }
                      }));
        EXPECT_EQ(count, attention_shapes(c.model.spec, spec).size()) << spec.name();
      }
      for (const auto& [spec, weights] : ffns) {
        EXPECT_EQ(weights.spec, spec);
        std::size_t count = 0;
        visit_tensors(weights,
                      ConstTensorVisitor([&](const std::string&, const at::Tensor&) { ++count; }));
        EXPECT_EQ(count, ffn_shapes(c.model.spec, spec).size()) << spec.name();
      }
    }
  }
}

TEST(Initialize, AVariantOfTheParentsShapeIsTheParent) {
  for (const BiasSetting& bias : kBiasSettings) {
    const InitCase c(bias);
    Gram ffn(96, 0, at::kCPU);
    ffn.add(c.parent_pass.ffn_features, at::Tensor(), at::Tensor());
    const FfnOrder order = order_ffn_channels(ffn.xx(), c.layer().ffn.down, 1e-3, "test");
    const FfnWeights same = keep_channels(c.layer().ffn, order.channels, refit_down(order, 96));
    EXPECT_CLOSE(ffn_output(same, ffn_features(same, c.parent_pass.ffn_xn)), c.parent_pass.ffn_y,
                 1e-4);

    AttentionWeights pooled = pool_kv_heads(c.model.spec, c.layer().attention, 4);
    const at::Tensor features =
        attention_features(pooled, c.geometry, c.parent_pass.attention_xn, c.pass);
    Gram attention(128, 64, at::kCPU);
    const at::Tensor& o_bias = c.layer().attention.o_bias;
    attention.add(features,
                  o_bias.defined() ? c.parent_pass.attention_y - o_bias : c.parent_pass.attention_y,
                  at::Tensor());
    pooled.o = refit_ridge(attention, pooled.o, 1e-3, "test").weight.to(at::kFloat);
    EXPECT_CLOSE(attention_output(pooled, features), c.parent_pass.attention_y, 1e-4);
  }
}

TEST(Initialize, KvHeadsAreMeansOfNeighbours) {
  const InitCase c(BiasSetting{true, true, false});
  const AttentionWeights& parent = c.layer().attention;
  const AttentionWeights pooled = pool_kv_heads(c.model.spec, parent, 2);
  for (const auto& [got, want] :
       {std::pair{pooled.k, parent.k}, std::pair{pooled.v, parent.v},
        std::pair{pooled.k_bias.unsqueeze(1), parent.k_bias.unsqueeze(1)},
        std::pair{pooled.v_bias.unsqueeze(1), parent.v_bias.unsqueeze(1)}}) {
    const test::Matrix own = test::to_matrix(want);
    test::Matrix mean(64, std::vector<double>(own.front().size()));
    for (std::size_t head = 0; head < 2; ++head) {
      for (std::size_t e = 0; e < 32; ++e) {
        for (std::size_t d = 0; d < own.front().size(); ++d) {
          mean[head * 32 + e][d] =
              (own[head * 2 * 32 + e][d] + own[(head * 2 + 1) * 32 + e][d]) / 2;
        }
      }
    }
    EXPECT_CLOSE(got, test::to_tensor(mean), 1e-6);
  }
  EXPECT_TRUE(pooled.q.equal(parent.q));
  EXPECT_TRUE(pooled.o.equal(parent.o));
  EXPECT_TRUE(pooled.o_bias.equal(parent.o_bias));
}

TEST(Initialize, PapersLinearMatricesAreThoseOfPlainLoops) {
  ModelSpec spec = test::tiny_spec(1);
  spec.layers[0].attention = AttentionSpec::gqa(2);  // two query heads share one
  const InitCase c(spec);
  const test::Matrix o = test::to_matrix(c.layer().attention.o);
  const test::Matrix v = test::to_matrix(c.layer().attention.v);
  const test::Matrix down = test::to_matrix(c.layer().ffn.down);
  const test::Matrix up = test::to_matrix(c.layer().ffn.up);
  test::Matrix attention(64, std::vector<double>(64, 0.0));
  test::Matrix ffn = attention;
  for (std::size_t i = 0; i < 64; ++i) {
    for (std::size_t j = 0; j < 64; ++j) {
      for (std::size_t head = 0; head < 4; ++head) {
        for (std::size_t e = 0; e < 32; ++e) {
          attention[i][j] += o[i][head * 32 + e] * v[(head / 2) * 32 + e][j];
        }
      }
      for (std::size_t f = 0; f < 96; ++f) {
        ffn[i][j] += down[i][f] * up[f][j];
      }
    }
  }
  EXPECT_CLOSE(paper_linear_attention(c.model.spec, c.layer().attention),
               test::to_tensor(attention), 1e-5);
  EXPECT_CLOSE(paper_linear_ffn(c.layer().ffn), test::to_tensor(ffn), 1e-5);
}

TEST(Initialize, PaperKeepsTheChannelsThatContributeMost) {
  const InitCase c(BiasSetting{false, false, true});
  const test::Matrix features = test::to_matrix(rows(c.parent_pass.ffn_features));
  const test::Matrix down = test::to_matrix(c.layer().ffn.down);
  std::vector<std::pair<double, std::int64_t>> contributions;
  for (std::size_t f = 0; f < 96; ++f) {
    double mean = 0.0;
    double norm = 0.0;
    for (const auto& token : features) {
      mean += std::abs(token[f]) / static_cast<double>(features.size());
    }
    for (const auto& row : down) {
      norm += row[f] * row[f];
    }
    contributions.emplace_back(-mean * std::sqrt(norm), static_cast<std::int64_t>(f));
  }
  std::sort(contributions.begin(), contributions.end());
  const LayerVariants variants = c.make(InitMethod::kPaper, at::Tensor());
  const FfnWeights half = width_of(variants, 64);
  for (std::int64_t i = 0; i < 64; ++i) {
    const std::int64_t channel = contributions[static_cast<std::size_t>(i)].second;
    EXPECT_TRUE(half.gate[i].equal(c.layer().ffn.gate[channel])) << i;
    EXPECT_TRUE(half.up_bias[i].equal(c.layer().ffn.up_bias[channel])) << i;
    EXPECT_TRUE(half.down.select(1, i).equal(c.layer().ffn.down.select(1, channel))) << i;
  }
}

TEST(Initialize, LinearVariantsAreTheNormalEquationsWithTokenWeights) {
  for (const BiasSetting& bias : {kBiasSettings.front(), kBiasSettings.back()}) {
    const InitCase c(bias);
    const LayerVariants variants = c.make(InitMethod::kLeastSquares, c.weights);
    EXPECT_CLOSE(variants.attention.at(AttentionSpec::linear()).linear,
                 test::naive_ridge(rows(c.parent_pass.attention_xn),
                                   rows(c.parent_pass.attention_y), c.weight_list(), 1e-2),
                 1e-4);
    EXPECT_CLOSE(variants.ffn.at(FfnSpec::linear()).linear,
                 test::naive_ridge(rows(c.parent_pass.ffn_xn), rows(c.parent_pass.ffn_y),
                                   c.weight_list(), 1e-2),
                 1e-4);
  }
}

TEST(Initialize, KvHeadsGetTheOutputMatrixThatFitsThem) {
  for (const BiasSetting& bias : {kBiasSettings.front(), kBiasSettings.back()}) {
    const InitCase c(bias);
    const AttentionWeights& parent = c.layer().attention;
    const AttentionWeights got =
        c.make(InitMethod::kLeastSquares, c.weights).attention.at(AttentionSpec::gqa(1));
    const AttentionWeights pooled = pool_kv_heads(c.model.spec, parent, 1);
    const at::Tensor features =
        attention_features(pooled, c.geometry, c.parent_pass.attention_xn, c.pass);
    at::Tensor residual = c.parent_pass.attention_y - at::linear(features, parent.o);
    if (parent.o_bias.defined()) {
      residual = residual - parent.o_bias;
    }
    EXPECT_CLOSE(got.o,
                 parent.o.to(at::kDouble) +
                     test::naive_ridge(rows(features), rows(residual), c.weight_list(), 1e-2),
                 1e-4);
    const auto error = [&](const AttentionWeights& w) {
      return (attention_output(w, features) - c.parent_pass.attention_y)
          .square()
          .mul(c.weights.unsqueeze(-1))
          .sum()
          .item<double>();
    };
    EXPECT_LT(error(got), error(pooled));
  }
}

TEST(Initialize, FfnWidthsAreNestedAndRefitted) {
  const InitCase c(BiasSetting{false, false, true});
  const LayerVariants variants = c.make(InitMethod::kLeastSquares, c.weights);
  const FfnWeights wide = width_of(variants, 64);
  const FfnWeights narrow = width_of(variants, 32);
  EXPECT_TRUE(narrow.gate.equal(wide.gate.narrow(0, 0, 32)));
  EXPECT_TRUE(narrow.up.equal(wide.up.narrow(0, 0, 32)));
  EXPECT_TRUE(narrow.gate_bias.equal(wide.gate_bias.narrow(0, 0, 32)));
  EXPECT_TRUE(narrow.down_bias.equal(c.layer().ffn.down_bias));
  // The refit answers the normal equations: Σ w x (y − x·Wᵀ) + ridge·(W_parent − W) = 0.
  const at::Tensor kept = ffn_features(narrow, c.parent_pass.ffn_xn);
  const test::Matrix x = test::to_matrix(rows(kept));
  const test::Matrix residual =
      test::to_matrix(rows(c.parent_pass.ffn_y - ffn_output(narrow, kept)));
  const test::Matrix gradient = test::naive_products(x, residual, c.weight_list());
  test::Matrix all =
      test::naive_products(test::to_matrix(rows(c.parent_pass.ffn_features)),
                           test::to_matrix(rows(c.parent_pass.ffn_features)), c.weight_list());
  const double ridge = test::add_ridge(all, 1e-2);
  at::Tensor pulled = at::zeros({64, 32}, at::kDouble);
  for (std::int64_t i = 0; i < 32; ++i) {
    const at::Tensor is_channel = (c.layer().ffn.gate == narrow.gate[i]).all(1);
    ASSERT_EQ(is_channel.sum().item<std::int64_t>(), 1);
    const auto channel = is_channel.to(at::kByte).argmax().item<std::int64_t>();
    pulled.select(1, i).copy_(c.layer().ffn.down.select(1, channel) - narrow.down.select(1, i));
  }
  EXPECT_CLOSE(test::to_tensor(gradient) + ridge * pulled.t(), at::zeros({32, 64}), 1e-4);
}

TEST(Initialize, SumsOverRanksGiveTheWholeResult) {
  const InitCase c(BiasSetting{});
  const LayerSpace space{{AttentionSpec::gqa(2), AttentionSpec::linear()},
                         {FfnSpec::swiglu(32), FfnSpec::linear()}};
  for (const InitMethod method : {InitMethod::kLeastSquares, InitMethod::kPaper}) {
    std::deque<LayerInitializer> halves;
    std::vector<std::vector<at::Tensor>> sums(2);
    for (std::int64_t i = 0; i < 2; ++i) {
      LayerInitializer& half =
          halves.emplace_back(c.model.spec, c.layer(), c.geometry, space, LayerInitOptions{method});
      half.add(run_parent_layer(c.layer(), c.geometry, c.x.narrow(0, 6 * i, 6), c.pass), c.pass,
               c.weights.narrow(0, 6 * i, 6));
      half.visit_sums([&](at::Tensor& sum) { sums[static_cast<std::size_t>(i)].push_back(sum); });
    }
    std::size_t next = 0;
    halves[0].visit_sums([&](at::Tensor& sum) { sum.add_(sums[1][next++]); });
    LayerInitializer whole(c.model.spec, c.layer(), c.geometry, space, LayerInitOptions{method});
    whole.add(c.parent_pass, c.pass, c.weights);
    const LayerVariants got = halves[0].solve("test");
    const LayerVariants want = whole.solve("test");
    EXPECT_CLOSE(got.attention.at(AttentionSpec::gqa(2)).o,
                 want.attention.at(AttentionSpec::gqa(2)).o, 1e-4);
    EXPECT_CLOSE(got.attention.at(AttentionSpec::linear()).linear,
                 want.attention.at(AttentionSpec::linear()).linear, 1e-4);
    EXPECT_TRUE(width_of(got, 32).gate.equal(width_of(want, 32).gate));
    EXPECT_CLOSE(got.ffn.at(FfnSpec::linear()).linear, want.ffn.at(FfnSpec::linear()).linear, 1e-4);
  }
}

}  // namespace
}  // namespace puzzle
