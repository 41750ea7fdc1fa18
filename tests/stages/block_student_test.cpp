#include "puzzle/stages/block_student.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/stages/block_loss.h"
#include "stages/distill_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::naive_loss;
using test::same_tensors;

at::Tensor random_states(std::uint64_t seed, const std::vector<std::int64_t>& shape) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions(at::kFloat));
}

TEST(BlockLoss, IsTheFormula) {
  at::Tensor parent = random_states(1, {3, 5, 7});
  parent.select(0, 1).mul_(1000.0);  // giants decide the plain mean only
  const at::Tensor child = parent + 0.3 * random_states(2, {3, 5, 7});
  for (const std::string loss : {"mse", "token-mse", "cosine"}) {
    const BlockLoss kind = parse_block_loss(loss);
    const double want = naive_loss(loss, parent, child);
    EXPECT_NEAR(BlockTarget(kind, parent).loss(child).item<double>(), want, 1e-5 * want + 1e-7);
    // Batches add up to the whole.
    const BlockTarget a(kind, parent.narrow(0, 0, 1));
    const BlockTarget b(kind, parent.narrow(0, 1, 2));
    const at::Tensor sum = a.numerator(child.narrow(0, 0, 1)) + b.numerator(child.narrow(0, 1, 2));
    EXPECT_NEAR((sum / (a.denominator() + b.denominator())).item<double>(), want,
                1e-5 * want + 1e-7);
  }
  EXPECT_PUZZLE_ERROR((void)parse_block_loss("l1"), ErrorKind::kUsage, "expected mse");
}

TEST(BlockLoss, AZeroStateIsNoDivisionByZero) {
  const at::Tensor parent = at::zeros({1, 2, 4});
  for (const BlockLoss kind : {BlockLoss::kMse, BlockLoss::kTokenMse, BlockLoss::kCosine}) {
    EXPECT_TRUE(std::isfinite(BlockTarget(kind, parent).loss(parent).item<double>()));
  }
}

// The gradient of the paper's loss with a linear FFN has a closed form: 2/Σ‖p‖² Σ_t (c_t − p_t)
// xn_tᵀ; AdamW's first step without decay is −rate · g / (|g| + ε).
TEST(BlockStudent, TakesTheStepOfItsLoss) {
  const ModelSpec spec = test::tiny_spec(1);
  const ModelWeights parent = random_model(spec, 3);
  const Geometry geometry(spec);
  LayerWeights start = parent.layers[0];
  start.ffn = make_ffn(spec, FfnSpec::linear(), [](const NamedShape& wanted) {
    return 0.1 * random_states(4, wanted.shape);
  });
  const at::Tensor x = random_states(5, {2, 6, spec.hidden_size});
  const PassContext pass = make_pass(geometry, 6, at::kFloat, at::kCPU);
  for (const bool shares_norm : {true, false}) {
    start.ffn.norm = shares_norm ? parent.layers[0].ffn.norm : parent.layers[0].ffn.norm * 1.5;
    const SharedBatch batch = run_shared(parent.layers[0], geometry, x, pass, BlockLoss::kMse);
    AdamWOptions options;
    options.clip_norm = 0.0;
    options.eps = 1e-3;
    BlockStudent student("ffn/linear", StudentRole::kFfn, start, parent.layers[0], geometry,
                         {.kv = 9.0, .ffn = 9.0, .linear = 0.5}, options);
    (void)student.train_step(batch, 0.5);

    const c10::NoGradGuard no_grad;
    const at::Tensor mid = apply_attention(parent.layers[0].attention, geometry, x, pass);
    const at::Tensor p = apply_ffn(parent.layers[0].ffn, geometry, mid);
    const at::Tensor xn = ffn_input(start.ffn, geometry, mid).flatten(0, 1).to(at::kDouble);
    const at::Tensor c = apply_ffn(start.ffn, geometry, mid);
    const at::Tensor error = (c - p).flatten(0, 1).to(at::kDouble);
    const at::Tensor gradient = 2.0 / p.to(at::kDouble).square().sum() * at::matmul(error.t(), xn);
    const at::Tensor want =
        start.ffn.linear.to(at::kDouble) - 0.25 * gradient / (gradient.abs() + 1e-3);
    EXPECT_CLOSE(student.trained().ffn.linear, want, 2e-4);
    EXPECT_TRUE(at::equal(student.trained().ffn.norm, start.ffn.norm));
    EXPECT_FALSE(student.trained().ffn.linear.requires_grad());
    EXPECT_TRUE(same_tensors(student.trained().attention, parent.layers[0].attention));
  }
}

TEST(BlockStudent, FrozenHalvesGetNoGradients) {
  const ModelSpec spec = test::tiny_spec(1);
  const ModelWeights parent = random_model(spec, 3);
  const Geometry geometry(spec);
  LayerWeights start = parent.layers[0];
  start.attention = pool_kv_heads(spec, parent.layers[0].attention, 1);
  const SharedBatch batch =
      run_shared(parent.layers[0], geometry, random_states(5, {2, 6, spec.hidden_size}),
                 make_pass(geometry, 6, at::kFloat, at::kCPU), BlockLoss::kTokenMse);
  EXPECT_CLOSE(batch.target.output(),
               apply_layer(parent.layers[0], geometry, batch.input_BTD, batch.pass), 0.0);
  const LayerWeights copy = clone(start, false);
  BlockStudent student("attention/kv1", StudentRole::kAttention, start, parent.layers[0], geometry,
                       {.kv = 1e-2}, {});
  double first = 0.0, last = 0.0;
  for (int step = 0; step < 20; ++step) {
    last = student.train_step(batch, 1.0).item<double>();
    first = step == 0 ? last : first;
  }
  EXPECT_LT(last, 0.5 * first);
  EXPECT_TRUE(same_tensors(start, copy));
  EXPECT_TRUE(same_tensors(student.trained().ffn, parent.layers[0].ffn));
  visit_tensors(parent.layers[0],
                ConstTensorVisitor([](const std::string& name, const at::Tensor& tensor) {
                  EXPECT_FALSE(tensor.grad().defined()) << name;
                }));
}

}  // namespace
}  // namespace puzzle
