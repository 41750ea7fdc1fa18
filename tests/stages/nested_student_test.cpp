#include "puzzle/stages/nested_student.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/model/ffn_order.h"
#include "stages/distill_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::DistillRun;
using test::naive_loss;

TEST(NestedStudent, AStepTrainsTheEndsAndOthersAtRandom) {
  for (const std::size_t num_widths : {1U, 2U, 3U, 9U}) {
    std::set<std::size_t> ever;
    for (std::int64_t step = 0; step < 40; ++step) {
      const auto chosen = sampled_widths({.per_step = 4, .seed = 3}, num_widths, step);
      EXPECT_EQ(chosen.size(), std::min<std::size_t>(4, num_widths));
      EXPECT_EQ(chosen.front(), 0U);
      EXPECT_EQ(chosen.back(), num_widths - 1);
      EXPECT_TRUE(std::ranges::is_sorted(chosen));
      EXPECT_EQ(std::ranges::adjacent_find(chosen), chosen.end());
      ever.insert(chosen.begin(), chosen.end());
    }
    EXPECT_EQ(ever.size(), num_widths);
  }
  EXPECT_EQ(sampled_widths({.per_step = 2, .seed = 3}, 9, 0).size(), 2U);
}

// A layer of a small model with all its widths, and one batch.
struct NestedStudentCase {
  NestedStudentCase() {
    const c10::NoGradGuard no_grad;
    at::Generator generator = at::detail::createCPUGenerator(4);
    const at::Tensor x = at::randn({40, 8, spec.hidden_size}, generator, at::kFloat);
    const PassContext pass = make_pass(geometry, 8, at::kFloat, at::kCPU);
    batch.emplace(run_shared(layer(), geometry, x, pass, BlockLoss::kTokenMse));
    const at::Tensor features =
        ffn_features(layer().ffn, batch->parent.ffn_xn).flatten(0, 1).to(at::kDouble);
    start = nest_ffn(
        layer().ffn,
        order_ffn_channels(features.t().matmul(features), layer().ffn.down, 1e-2, "test"), 80);
  }
  [[nodiscard]] const LayerWeights& layer() const { return parent.layers[0]; }
  [[nodiscard]] NestedStudent student(double rate, const AdamWOptions& options,
                                      std::int64_t per_step = 4) const {
    return {start, widths, {.per_step = per_step, .seed = 1}, layer(), geometry, rate, options};
  }
  // What a step lowers, but for a constant: the gradient of 2·√loss is that of loss / √loss.
  [[nodiscard]] double objective(const NestedFfn& nested) const {
    double sum = 0.0;
    for (const std::int64_t width : widths) {
      sum += 2.0 * std::sqrt(loss_of(nested, width));
    }
    return sum;
  }
  // The loss of one width, made as an FFN of its own.
  [[nodiscard]] double loss_of(const NestedFfn& nested, std::int64_t width) const {
    const c10::NoGradGuard no_grad;
    const FfnWeights ffn = ffn_of_width(nested, width);
    return naive_loss("token-mse", batch->target.output(),
                      apply_ffn(ffn, geometry, batch->mid_BTD));
  }
  [[nodiscard]] double mean_loss(const NestedFfn& nested) const {
    double sum = 0.0;
    for (const std::int64_t width : widths) {
      sum += loss_of(nested, width) / static_cast<double>(widths.size());
    }
    return sum;
  }

  ModelSpec spec = test::tiny_spec(1);
  ModelWeights parent = random_model(spec, 3);
  Geometry geometry{spec};
  std::vector<std::int64_t> widths = {16, 48, 80};
  std::optional<SharedBatch> batch;
  NestedFfn start;
};

// AdamW's first step without decay is −rate · g / (|g| + ε); g by central differences.
TEST(NestedStudent, AStepFollowsTheLossesOfItsWidths) {
  const NestedStudentCase c;
  AdamWOptions options;
  options.clip_norm = 0.0;
  options.eps = 1e-3;
  NestedStudent student = c.student(0.01, options);
  const double loss = student.train_step(*c.batch, 0.5).item<double>();
  EXPECT_NEAR(loss, c.mean_loss(c.start), 1e-5 * loss);
  const NestedFfn trained = student.trained();
  EXPECT_FALSE(trained.whole.gate.requires_grad());
  EXPECT_TRUE(trained.basis.equal(c.start.basis));
  EXPECT_TRUE(trained.whole.norm.equal(c.start.whole.norm));

  const c10::NoGradGuard no_grad;
  for (const auto part : {&FfnWeights::gate, &FfnWeights::up, &FfnWeights::down}) {
    for (const std::int64_t index : {0, 700, 2000}) {
      const auto moved = [&](double by) {
        NestedFfn nested = c.start;
        nested.whole.*part = (nested.whole.*part).clone();
        (nested.whole.*part).view(-1)[index].add_(by);
        return c.objective(nested);
      };
      constexpr double kBy = 1e-2;
      const double g = (moved(kBy) - moved(-kBy)) / (2 * kBy);
      const double step =
          ((trained.whole.*part) - (c.start.whole.*part)).view(-1)[index].item<double>();
      EXPECT_NEAR(step, -0.005 * g / (std::abs(g) + 1e-3), 2e-4) << index;
    }
  }
}

TEST(NestedStudent, EveryWidthLearns) {
  const NestedStudentCase c;
  NestedStudent student = c.student(3e-3, {}, 2);
  for (int step = 0; step < 30; ++step) {
    (void)student.train_step(*c.batch, 1.0);
  }
  for (const std::int64_t width : c.widths) {
    EXPECT_LT(c.loss_of(student.trained(), width), 0.95 * c.loss_of(c.start, width)) << width;
  }
}

DistillBlocksOptions nested_options() {
  DistillBlocksOptions options = test::usual_options();
  options.widths = "nested";
  options.nested_learning_rate = 1e-3;
  return options;
}

// Three widths under one set of weights, in every layer.
struct NestedRun : DistillRun {
  explicit NestedRun(const std::string& init = "least-squares") {
    for (LayerSpace& layer : space.layers) {
      layer.ffn = {FfnSpec::swiglu(96), FfnSpec::swiglu(64), FfnSpec::swiglu(32),
                   FfnSpec::swiglu(16), FfnSpec::linear()};
    }
    start = make({.init = init});
  }
};

TEST(NestedStudent, ALibraryHoldsTheBetterOfBeforeAndAfterForEveryWidth) {
  const c10::NoGradGuard no_grad;
  for (const std::string init : {"least-squares", "paper"}) {
    NestedRun run(init);
    const DistillBlocksResult result = run.distill(nested_options());
    const auto rows = run.rows();
    std::int64_t kept = 0;
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      const ModelWeights& parent = run.parent.weights;
      const LayerWeights& own = parent.layers[static_cast<std::size_t>(layer)];
      const LayerLibrary library =
          load_layer_library(layer_file(result.folder, layer), parent.spec, at::kFloat);
      const at::Tensor tokens = run.validation->slice(0, run.validation->num_windows()).tokens_BT;
      const PassContext pass = make_pass(run.parent.geometry, 16, at::kFloat, at::kCPU);
      const at::Tensor x =
          apply_layers(parent, run.parent.geometry, embed(parent, tokens), pass, 0, layer);
      const at::Tensor middle = apply_attention(own.attention, run.parent.geometry, x, pass);
      const at::Tensor want = apply_ffn(own.ffn, run.parent.geometry, middle);
      for (const std::int64_t width : {16, 32, 64}) {
        const FfnSpec ffn = FfnSpec::swiglu(width);
        const VariantRow& row = rows.at(std::to_string(layer) + "/ffn/" + ffn.name());
        kept += row.kept == "after" ? 1 : 0;
        const double loss = naive_loss(
            "token-mse", want,
            apply_ffn(make_ffn_variant(parent, library, layer, ffn), run.parent.geometry, middle));
        EXPECT_NEAR(loss, std::min(*row.loss_before, *row.loss_after), 1e-3 * loss)
            << init << " " << layer << " " << width;
      }
      EXPECT_TRUE(library.ffn.contains(FfnSpec::linear()));
      EXPECT_EQ(library.ffn.size(), 1U);
    }
    EXPECT_GE(kept, 6);
  }
}

TEST(NestedStudent, AStepTrainsAsManyWidthsAsAskedFor) {
  std::set<double> losses;
  for (const std::int64_t per_step : {2, 3, 8}) {  // of the three that there are
    NestedRun run("paper");
    DistillBlocksOptions options = nested_options();
    options.widths_per_step = per_step;
    (void)run.distill(options);
    losses.insert(run.rows().at("0/ffn/w32").loss_after.value());
  }
  EXPECT_EQ(losses.size(), 2U);
}

TEST(NestedStudent, TrainingThatHelpsNothingLeavesTheStart) {
  NestedRun run;
  DistillBlocksOptions options = nested_options();
  options.nested_learning_rate = 1.0;
  const DistillBlocksResult result = run.distill(options);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary library =
        load_layer_library(layer_file(result.folder, layer), run.parent.weights.spec, at::kFloat);
    EXPECT_FALSE(library.trained.has_value());
    EXPECT_TRUE(library.nested.has_value());
  }
}

TEST(NestedStudent, CurvesAreOneForAllWidthsAndRepeat) {
  NestedRun run;
  const DistillBlocksResult first = run.distill(nested_options());
  std::set<std::string> series;
  for (const CurveRow& row : run.db.curves()) {
    if (row.stage == "distill-blocks") {
      series.insert(row.series);
    }
  }
  EXPECT_TRUE(series.contains("layer 1/ffn/nested"));
  EXPECT_FALSE(series.contains("layer 1/ffn/w32"));
  const std::string bytes = run.file_bytes(first.folder, 1);
  std::filesystem::remove(layer_file(first.folder, 1));
  EXPECT_EQ(run.distill(nested_options()).layers_made, 1);
  EXPECT_EQ(run.file_bytes(first.folder, 1), bytes);
}

TEST(NestedStudent, ASecondPassOverSharedWidthsIsRefused) {
  NestedRun run;
  run.start.folder = run.distill(nested_options()).folder;
  DistillBlocksOptions options = nested_options();
  options.epochs = 1;
  EXPECT_PUZZLE_ERROR((void)run.distill(options), ErrorKind::kUsage,
                      "distill_blocks.widths to separate");
}

}  // namespace
}  // namespace puzzle
