#include "puzzle/stages/compress_parent.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "puzzle/arch/cost.h"
#include "stages/child_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

at::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::TensorOptions(at::kDouble));
}

// How many of every four consecutive elements of a row are not 0, at most.
std::int64_t most_of_four(const at::Tensor& weight) {
  return weight.ne(0).view({weight.size(0), -1, 4}).sum(-1).max().item<std::int64_t>();
}

TEST(PruneTwoOfFour, KeepsWhatMattersMostOfEveryFour) {
  const at::Tensor weight = random({5, 12}, 1);
  const at::Tensor norms = random({12}, 2).abs();
  const at::Tensor pruned = prune_two_of_four(weight, norms);
  const auto w = weight.accessor<double, 2>();
  const auto n = norms.accessor<double, 1>();
  const auto p = pruned.accessor<double, 2>();
  for (std::int64_t row = 0; row < 5; ++row) {
    for (std::int64_t first = 0; first < 12; first += 4) {
      std::vector<double> importance;
      for (std::int64_t j = first; j < first + 4; ++j) {
        importance.push_back(std::abs(w[row][j]) * n[j]);
      }
      std::vector<double> sorted = importance;
      std::ranges::sort(sorted, std::greater());
      for (std::int64_t j = first; j < first + 4; ++j) {
        const bool stays = importance[static_cast<std::size_t>(j - first)] >= sorted[1];
        EXPECT_EQ(p[row][j], stays ? w[row][j] : 0.0) << row << ", " << j;
      }
    }
  }
  // All alike: the earlier ones stay.
  EXPECT_TRUE(at::equal(prune_two_of_four(at::ones({1, 4}), at::ones({4})),
                        at::tensor(std::vector<float>{1, 1, 0, 0}).unsqueeze(0)));
}

TEST(BestOfRank, HasTheErrorOfTheSmallestSingularValues) {
  const at::Tensor x = random({200, 8}, 3).mm(random({8, 8}, 4));  // inputs that hang together
  const at::Tensor xx = x.t().mm(x);
  const at::Tensor weight = random({6, 8}, 5);
  const auto error = [&](const at::Tensor& w) {
    return (weight - w).mm(x.t()).square().sum().item<double>();
  };
  // ‖(W − W')Xᵀ‖² cannot be below what the singular values of the outputs W·Xᵀ leave
  // (Eckart-Young).
  const at::Tensor values = at::linalg_svdvals(weight.mm(x.t()));
  for (const std::int64_t rank : {1, 3, 5}) {
    const at::Tensor best = best_of_rank(weight, xx, rank, "test");
    EXPECT_EQ(at::linalg_matrix_rank(best, 1e-9).item<std::int64_t>(), rank);
    const double least = values.narrow(0, rank, 6 - rank).square().sum().item<double>();
    EXPECT_GE(error(best), least * (1.0 - 1e-9));
    EXPECT_LE(error(best), least * 1.01) << rank;
    // The plain SVD of W, which does not know the inputs, does worse.
    const auto [u, s, vh] = at::linalg_svd(weight, false);
    EXPECT_GT(error((u.narrow(1, 0, rank) * s.narrow(0, 0, rank)).mm(vh.narrow(0, 0, rank))),
              1.05 * least);
  }
}

struct CompressRun : test::ChildRun {
  CompressResult run(const CompressOptions& options, const std::string& name = "small") {
    return compress_parent(context, parent, name, *calibration, options);
  }
};

TEST(CompressParent, TwoOfFourOnTheInputsThatCompressedLayersMake) {
  CompressRun run;
  CompressOptions options;
  options.method = "wanda-2of4";
  const CompressResult result = run.run(options);
  const ModelWeights child = load_model(result.folder, at::kFloat);
  double dropped = 0.0;
  for (std::size_t i = 0; i < child.layers.size(); ++i) {
    const AttentionWeights& attention = child.layers[i].attention;
    const FfnWeights& ffn = child.layers[i].ffn;
    for (const at::Tensor& matrix :
         {attention.q, attention.k, attention.v, attention.o, ffn.gate, ffn.up, ffn.down}) {
      EXPECT_EQ(most_of_four(matrix), 2);
      dropped += static_cast<double>(matrix.numel()) / 2;
    }
  }
  const double whole = static_cast<double>(
      model_cost(run.parent.weights.spec, ExportTarget::kNative, WeightTypes{}).parameters);
  EXPECT_EQ(result.parameters, whole - dropped);
  // The last layer's FFN again, from the states of the child below it.
  const std::size_t last = child.layers.size() - 1;
  const TokenBatch batch = run.calibration->slice(0, run.calibration->num_windows());
  PassContext pass = make_pass(run.parent.geometry, batch.tokens_BT.size(1), at::kFloat, at::kCPU);
  pass.mask = batch.attention_mask();
  at::Tensor x = apply_layers(child, run.parent.geometry, embed(child, batch.tokens_BT), pass, 0,
                              static_cast<std::int64_t>(last));
  const LayerWeights& own = run.parent.weights.layers[last];
  x = apply_attention(own.attention, run.parent.geometry, x, pass);
  const at::Tensor xn = ffn_input(own.ffn, run.parent.geometry, x);
  const at::Tensor norms = xn.flatten(0, 1).to(at::kDouble).square().sum(0).sqrt();
  EXPECT_TRUE(at::equal(child.layers[last].ffn.up, prune_two_of_four(own.ffn.up, norms)));
}

TEST(CompressParent, LowRankKeepsTheShareAskedForAndMoreIsBetter) {
  CompressRun run;
  CompressOptions options;
  options.method = "low-rank";
  std::vector<double> kl;
  for (const double kept : {0.4, 0.8}) {
    options.kept = kept;
    const CompressResult result = run.run(options);
    const at::Tensor up = load_model(result.folder, at::kFloat).layers[1].ffn.up.to(at::kDouble);
    const auto rank = static_cast<std::int64_t>(kept * static_cast<double>(up.numel()) /
                                                static_cast<double>(up.size(0) + up.size(1)));
    EXPECT_EQ(at::linalg_matrix_rank(up, 1e-4).item<std::int64_t>(), rank);
    kl.push_back(run.naive_kl(result.folder));
  }
  EXPECT_LT(kl[1], kl[0]);
  EXPECT_GT(kl[1], 0.0);
}

TEST(CompressParent, ARankWithoutWindowsSumsAlong) {
  CompressRun run;
  CompressOptions options;
  options.method = "wanda-2of4";
  options.num_tokens = run.calibration->window();
  const ModelWeights one = load_model(run.run(options).folder, at::kFloat);
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    const std::filesystem::path folder =
        run.folder / ("rank" + std::to_string(communicator.rank()) + "-of-two");
    test::Elsewhere own(communicator, folder);
    const CompressResult result =
        compress_parent(own.context, run.parent, "child", *run.calibration, options);
    if (communicator.is_first()) {
      const ModelWeights two = load_model(result.folder, at::kFloat);
      EXPECT_TRUE(at::equal(two.layers[1].ffn.down, one.layers[1].ffn.down));
    }
  });
}

TEST(CompressParent, KeptMeansNothingToWanda) {
  CompressRun run;
  CompressOptions options;
  options.method = "wanda-2of4";
  options.kept = 0.3;
  EXPECT_PUZZLE_ERROR((void)run.run(options), ErrorKind::kUsage, "compress.kept has no effect");
}

TEST(CompressParent, IsMadeOnceAndAgainForOtherOptions) {
  CompressRun run;
  CompressOptions options;
  options.method = "wanda-2of4";
  const CompressResult first = run.run(options);
  const auto written = std::filesystem::last_write_time(first.folder / "model.safetensors");
  const CompressResult second = run.run(options);
  EXPECT_EQ(second.key, first.key);
  EXPECT_EQ(second.parameters, first.parameters);
  EXPECT_EQ(std::filesystem::last_write_time(first.folder / "model.safetensors"), written);
  options.method = "low-rank";
  EXPECT_NE(run.run(options).key, first.key);
  const TokenPart empty("calibration", run.corpus.load(), {}, {16, true});
  EXPECT_PUZZLE_ERROR((void)compress_parent(run.context, run.parent, "small", empty, options),
                      ErrorKind::kUsage, "data.calibration_tokens");
}

}  // namespace
}  // namespace puzzle
