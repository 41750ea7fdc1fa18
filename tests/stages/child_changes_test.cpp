#include "puzzle/stages/child_changes.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stages/measured_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

// `narrow` with dead channels up to `width`, all matrices a little off.
FfnWeights nearly(const FfnWeights& narrow, std::int64_t width, double off, std::uint64_t seed) {
  at::manual_seed(seed);
  FfnWeights wide = narrow;
  wide.spec = FfnSpec::swiglu(width);
  const std::int64_t more = width - narrow.spec.width;
  const std::int64_t hidden = narrow.down.size(0);
  const auto disturbed = [&](const at::Tensor& x) { return x + off * x.std() * at::randn_like(x); };
  wide.gate = at::cat({disturbed(narrow.gate), at::zeros({more, hidden})});
  wide.up = at::cat({disturbed(narrow.up), at::zeros({more, hidden})});
  wide.down = at::cat({disturbed(narrow.down), at::zeros({hidden, more})}, 1);
  return wide;
}

// A library whose w64 is almost its w32, in every layer.
struct NearRun : test::MeasuredRun {
  explicit NearRun(double off) {
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      LayerLibrary variants = load(library, layer);
      variants.ffn[FfnSpec::swiglu(64)] =
          nearly(variants.ffn.at(FfnSpec::swiglu(32)), 64, off, static_cast<std::uint64_t>(layer));
      save_layer_library(layer_file(folder / "near", layer), variants);
    }
    library.folder = folder / "near";
    for (LayerSpace& layer : space.layers) {
      layer.attention = {AttentionSpec::gqa(4)};
      layer.ffn = {FfnSpec::swiglu(96), FfnSpec::swiglu(64), FfnSpec::swiglu(32)};
    }
  }
  [[nodiscard]] BlockChanges changes(const Architecture& child, std::int64_t samples) {
    return estimate_changes(context, parent, library.folder, space, child, *validation,
                            {.batch_windows = 5, .samples = samples});
  }
};

// Around a child far from its parent the first-order term rules: the KL moves by what a finite
// difference says.
TEST(ChildChanges, SmallSwapsChangeTheKlAsMeasured) {
  NearRun run(0.01);
  const Architecture child(3, parse_block("kv4/w32"));
  const double kl = run.naive_kl(child);
  EXPECT_GT(kl, 0.01);
  const auto changes = run.changes(child, 4);
  ASSERT_EQ(changes.size(), 3U);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    Architecture other = child;
    other[layer] = parse_block("kv4/w64");
    const double measured = run.naive_kl(other) - kl;
    EXPECT_GT(std::abs(measured), 1e-5);
    EXPECT_NEAR(changes[layer].at("kv4/w64").value, measured, 0.15 * std::abs(measured) + 2e-6)
        << layer;
    EXPECT_EQ(changes[layer].at("kv4/w32").value, 0.0);
  }
}

// Back to the parent's block, which is far away: half of the damage or more goes away, says the
// estimate, as measured.
TEST(ChildChanges, TheWayBackIsAGain) {
  NearRun run(0.01);
  const Architecture child(3, parse_block("kv4/w32"));
  const double kl = run.naive_kl(child);
  const auto changes = run.changes(child, 64);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    Architecture other = child;
    other[layer] = parse_block("kv4/w96");
    const double measured = run.naive_kl(other) - kl;
    EXPECT_LT(measured, 0.0);
    EXPECT_LT(changes[layer].at("kv4/w96").value, 0.4 * measured) << layer;
    EXPECT_GT(changes[layer].at("kv4/w96").value, 1.5 * measured) << layer;
  }
}

// Around the parent itself the first-order term is nothing, and the second is the KL.
TEST(ChildChanges, AroundTheParentTheyAreScores) {
  NearRun run(0.01);
  const auto changes = run.changes(run.own_layers(), 64);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    Architecture other = run.own_layers();
    other[layer] = parse_block("kv4/w32");
    const double measured = run.naive_kl(other);
    EXPECT_NEAR(changes[layer].at("kv4/w32").value, measured, 0.3 * measured) << layer;
  }
}

TEST(ChildChanges, RanksAndBatchesChangeNothing) {
  test::MeasuredRun run(3, /*cross_documents=*/false);
  const Architecture child = {parse_block("kv2/w64"), parse_block("none/w32"),
                              parse_block("kv4/linear")};
  const auto changes = [&](RunContext& context, std::int64_t batch) {
    return estimate_changes(context, run.parent, run.library.folder, run.space, child,
                            *run.validation, {.batch_windows = batch, .samples = 3});
  };
  const auto alone = changes(run.context, 12);
  for (const LayerSpace& layer : run.space.layers) {
    EXPECT_EQ(alone[0].size(), layer.attention.size() * layer.ffn.size());
  }
  test::ThreadGroup::run(3, [&](Communicator& communicator) {
    RunContext context{run.folder.path(), run.db, communicator};
    const auto mine = changes(context, 3);
    for (std::size_t layer = 0; layer < 3; ++layer) {
      for (const auto& [name, change] : alone[layer]) {
        const ScoreValue& own = mine[layer].at(name);
        EXPECT_NEAR(own.value, change.value, 1e-4 * (1.0 + std::abs(change.value))) << name;
        EXPECT_NEAR(own.standard_error, change.standard_error, 1e-3) << name;
      }
    }
  });
}

}  // namespace
}  // namespace puzzle
