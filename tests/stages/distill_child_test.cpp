#include "puzzle/stages/distill_child.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/child_trainer.h"
#include "stages/child_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

DistillChildOptions usual_options() {
  DistillChildOptions options;
  options.batch_windows = 4;
  options.micro_windows = 2;
  options.num_tokens = 16 * 4 * 20;
  options.validate_every = 5;
  options.save_every_s = 0.0;
  options.adamw.learning_rate = 2e-3;
  options.compute = "float32";
  return options;
}

struct DistilledRun : test::ChildRun {
  using ChildRun::ChildRun;
  DistillChildResult run(const DistillChildOptions& options) { return run(options, context); }
  DistillChildResult run(const DistillChildOptions& options, RunContext& where) {
    return distill_child(where, parent, input(), *calibration, *validation, options);
  }
  [[nodiscard]] DistillChildInput input() const { return {start_folder, start_key, "child"}; }
};

// Training states below a run folder's children/.
std::vector<std::filesystem::path> training_folders(const std::filesystem::path& run) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(run / "children")) {
    if (entry.path().extension().string().starts_with(".training-")) {
      found.push_back(entry.path());
    }
  }
  return found;
}

// The three terms with autograd's own operations over whole vocabularies.
at::Tensor plain_loss(const ModelWeights& parent, const ModelWeights& child,
                      const TokenBatch& batch, double cosine, double kl, double lm,
                      bool mean_over_layers) {
  const Geometry geometry(parent.spec);
  const PassContext pass = make_pass(geometry, batch.tokens_BT.size(1), at::kFloat, at::kCPU);
  at::Tensor p = embed(parent, batch.tokens_BT);
  at::Tensor q = embed(child, batch.tokens_BT);
  at::Tensor cosine_sum = at::zeros({});
  for (std::size_t i = 0; i < child.layers.size(); ++i) {
    p = apply_layer(parent.layers[i], geometry, p, pass);
    q = apply_layer(child.layers[i], geometry, q, pass);
    const at::Tensor dots = (p * q).sum(-1) / (p.square().sum(-1) * q.square().sum(-1)).sqrt();
    cosine_sum = cosine_sum + (1 - dots).mean();
  }
  if (mean_over_layers) {
    cosine_sum = cosine_sum / static_cast<double>(child.layers.size());
  }
  const at::Tensor log_p = at::linear(final_hidden(parent, p), parent.head).log_softmax(-1);
  const at::Tensor log_q = at::linear(final_hidden(child, q), child.head).log_softmax(-1);
  const at::Tensor kl_mean = (log_p.exp() * (log_p - log_q)).sum(-1).mean();
  const std::int64_t T = batch.tokens_BT.size(1);
  const at::Tensor next = batch.tokens_BT.narrow(1, 1, T - 1).unsqueeze(-1);
  // A mean over all tokens, the last of a window having no successor.
  const at::Tensor ce = -log_q.narrow(1, 0, T - 1).gather(2, next).sum() /
                        static_cast<double>(batch.tokens_BT.numel());
  return cosine_sum * cosine + kl_mean * kl + ce * lm;
}

ModelWeights with_gradients(const ModelWeights& model, bool all) {
  ModelWeights copy = model;
  for (LayerWeights& layer : copy.layers) {
    layer = clone(layer, true);
  }
  copy.final_norm = model.final_norm.clone().set_requires_grad(true);
  if (all) {
    copy.embedding = model.embedding.clone().set_requires_grad(true);
    copy.head = model.head.clone().set_requires_grad(true);
  }
  return copy;
}

std::map<std::string, at::Tensor> tensors_of(const ModelWeights& model) {
  std::map<std::string, at::Tensor> tensors;
  visit_tensors(model, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors[name] = tensor;
                }));
  return tensors;
}

TEST(DistillChildLoss, EveryCombinationEqualsTheFormulaAndItsGradient) {
  const DistilledRun run;
  std::map<std::string, at::Tensor> before;
  for (const auto& [name, tensor] : tensors_of(run.parent.weights)) {
    before[name] = tensor.clone();
  }
  const TokenBatch batch = run.calibration->slice(0, 3);
  for (int combination = 1; combination < 16; ++combination) {
    DistillChildOptions options;
    options.compute = "float32";
    options.cosine_weight = (combination & 1) != 0 ? 0.7 : 0.0;
    options.kl_weight = (combination & 2) != 0 ? 1.3 : 0.0;
    options.lm_weight = (combination & 4) != 0 ? 0.4 : 0.0;
    options.train = (combination & 8) != 0 ? "all" : "layers";
    options.cosine_over = (combination & 8) != 0 ? "mean" : "sum";
    if (combination == 8) {
      continue;
    }
    ChildTrainer trainer(run.parent, run.start(), options);
    const StepLosses losses = trainer.add_gradients(batch, 0.5);
    const ModelWeights model = with_gradients(run.start(), options.train == "all");
    const at::Tensor expected =
        plain_loss(run.parent.weights, model, batch, options.cosine_weight, options.kl_weight,
                   options.lm_weight, options.cosine_over == "mean");
    EXPECT_CLOSE(losses.total, expected * 0.5, 1e-5) << combination;
    if (options.kl_weight > 0.0) {
      EXPECT_CLOSE(losses.kl, plain_loss(run.parent.weights, model, batch, 0, 0.5, 0, false), 1e-5);
    }
    (expected * 0.5).backward();
    const auto got = tensors_of(trainer.child());
    for (const auto& [name, tensor] : tensors_of(model)) {
      EXPECT_EQ(got.at(name).requires_grad(), tensor.requires_grad()) << name;
      if (!tensor.requires_grad()) {
        continue;
      }
      // A term of weight 0 may leave a tensor without a gradient or with one of zeros.
      const at::Tensor wanted =
          tensor.grad().defined() ? tensor.grad() : at::zeros_like(tensor.detach());
      const at::Tensor found =
          got.at(name).grad().defined() ? got.at(name).grad() : at::zeros_like(wanted);
      const double size = wanted.abs().max().item<double>();
      EXPECT_CLOSE(found, wanted, 1e-4 * size + 1e-7) << combination << " " << name;
    }
  }
  for (const auto& [name, tensor] : tensors_of(run.parent.weights)) {
    EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
    EXPECT_FALSE(tensor.grad().defined()) << name;
  }
}

TEST(DistillChildLoss, MixedPrecisionHasNearlyTheSameGradients) {
  DistilledRun run({parse_block("kv2/w64"), parse_block("linear/w32"), parse_block("none/linear")});
  const TokenBatch batch = run.calibration->slice(0, 4);
  DistillChildOptions options = usual_options();
  options.train = "all";
  options.lm_weight = 0.5;
  for (const bool checkpointed : {false, true}) {
    options.checkpoint_layers = checkpointed;
    options.compute = "float32";
    ChildTrainer exact(run.parent, run.start(), options);
    options.compute = "bfloat16";
    ChildTrainer mixed(run.parent, run.start(), options);
    const double want = exact.add_gradients(batch, 1.0).total.item<double>();
    const double got = mixed.add_gradients(batch, 1.0).total.item<double>();
    EXPECT_NEAR(got, want, 0.02 * want);
    EXPECT_NE(got, want) << "nothing was rounded";
    const auto found = tensors_of(mixed.child());
    for (const auto& [name, tensor] : tensors_of(exact.child())) {
      const at::Tensor& rounded = found.at(name);
      EXPECT_EQ(rounded.scalar_type(), at::kFloat) << name;
      ASSERT_TRUE(rounded.grad().defined()) << name;
      EXPECT_EQ(rounded.grad().scalar_type(), at::kFloat) << name;
      const double off = (rounded.grad() - tensor.grad()).norm().item<double>();
      EXPECT_LT(off, 0.05 * tensor.grad().norm().item<double>()) << name;
    }
  }
}

TEST(DistillChild, MixedPrecisionTrainsAsWell) {
  DistilledRun run;
  test::Elsewhere exact_run(run.communicator, run.folder / "exact");
  const DistillChildResult exact = run.run(usual_options(), exact_run.context);
  DistillChildOptions options = usual_options();
  options.compute = "bfloat16";
  const DistillChildResult mixed = run.run(options);
  // What is reported is of the child as it is written, in full precision.
  EXPECT_NEAR(mixed.kl_after, run.naive_kl(mixed.folder), 1e-5);
  EXPECT_NE(mixed.kl_after, exact.kl_after);
  EXPECT_NEAR(mixed.kl_after, exact.kl_after, 0.1 * (exact.kl_before - exact.kl_after));
}

TEST(DistillChild, LowersTheHeldOutKlAndReportsThatOfTheFolder) {
  DistilledRun run;
  std::map<std::string, at::Tensor> before;
  for (const auto& [name, tensor] : tensors_of(run.parent.weights)) {
    before[name] = tensor.clone();
  }
  const DistillChildResult result = run.run(usual_options());
  EXPECT_EQ(result.folder, run.folder / "children/child");
  EXPECT_NEAR(result.kl_before, run.naive_kl(run.start_folder), 1e-5);
  EXPECT_NEAR(result.kl_after, run.naive_kl(result.folder), 1e-5);
  EXPECT_LT(result.kl_after, 0.95 * result.kl_before);
  EXPECT_GT(result.best_step, 0);
  EXPECT_TRUE(training_folders(run.folder.path()).empty());
  EXPECT_EQ(read_text_file(result.folder / "tokenizer.json"), "{}");
  for (const auto& [name, tensor] : tensors_of(run.parent.weights)) {
    EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
  }
  // Embedding and head are the parent's, bit for bit.
  const ModelWeights child = load_model(result.folder, at::kFloat);
  EXPECT_TRUE(at::equal(child.embedding, run.parent.weights.embedding));
  EXPECT_TRUE(at::equal(child.head, run.parent.weights.head));
  EXPECT_FALSE(at::equal(child.final_norm, run.parent.weights.final_norm));
}

TEST(DistillChild, TheBestWeightsSeenAreKept) {
  DistilledRun run;
  // A rate that grows until the weights wander off.
  DistillChildOptions options = usual_options();
  options.adamw.learning_rate = 1.0;
  options.schedule.warmup_fraction = 1.0;
  options.schedule.final_fraction = 1.0;
  options.validate_every = 2;
  const DistillChildResult result = run.run(options);
  double lowest = result.kl_before;
  double last = 0.0;
  for (const CurveRow& row : run.db.curves()) {
    if (row.metric == "heldout_kl") {
      lowest = std::min(lowest, row.value);
      last = row.value;
    }
  }
  EXPECT_EQ(result.kl_after, lowest);
  EXPECT_LT(lowest, last) << "the run should not end at its best";
  EXPECT_NEAR(result.kl_after, run.naive_kl(result.folder), 1e-5);
}

TEST(DistillChild, ADivergingRunKeepsTheChildItGot) {
  // The parent itself: whatever a step of this size does to it is a loss.
  DistilledRun run({parse_block("kv4/w96"), parse_block("kv4/w96"), parse_block("kv4/w96")});
  DistillChildOptions options = usual_options();
  options.adamw.learning_rate = 0.5;
  options.adamw.clip_norm = 0.0;
  options.schedule.warmup_fraction = 0.0;
  options.schedule.final_fraction = 1.0;
  const DistillChildResult result = run.run(options);
  EXPECT_EQ(result.best_step, 0);
  EXPECT_EQ(result.kl_after, result.kl_before);
  const auto kept = tensors_of(load_model(result.folder, at::kFloat));
  for (const auto& [name, tensor] : tensors_of(run.start())) {
    EXPECT_TRUE(at::equal(kept.at(name), tensor)) << name;
  }
}

TEST(DistillChild, LossesThatAreNotFiniteSayWhatToLower) {
  DistilledRun run;
  DistillChildOptions options = usual_options();
  options.adamw.learning_rate = 1e25;
  EXPECT_PUZZLE_ERROR((void)run.run(options), ErrorKind::kNumeric, "before step 5 the loss is nan");
  EXPECT_FALSE(std::filesystem::exists(run.folder / "children/child"));
}

TEST(DistillChild, AFinishedRunIsNotDoneAgain) {
  DistilledRun run;
  const DistillChildResult first = run.run(usual_options());
  // A state that a process killed at the very end left behind goes.
  make_folder(run.folder / ("children/child.training-" + first.key.substr(0, 8)));
  const auto written = std::filesystem::last_write_time(first.folder / "model.safetensors");
  DistillChildOptions options = usual_options();
  options.save_every_s = 7.0;
  const DistillChildResult second = run.run(options);
  EXPECT_EQ(std::filesystem::last_write_time(first.folder / "model.safetensors"), written);
  EXPECT_TRUE(training_folders(run.folder.path()).empty());
  EXPECT_EQ(second.key, first.key);
  EXPECT_EQ(second.kl_before, first.kl_before);
  EXPECT_EQ(second.kl_after, first.kl_after);
  EXPECT_EQ(second.best_step, first.best_step);
  const std::string weights = read_text_file(first.folder / "model.safetensors");
  options.kl_weight = 0.5;
  EXPECT_NE(run.run(options).key, first.key);
  EXPECT_NE(read_text_file(first.folder / "model.safetensors"), weights);
  // The folder now holds another child, so the first one is made again.
  options.kl_weight = usual_options().kl_weight;
  EXPECT_EQ(run.run(options).key, first.key);
  EXPECT_EQ(read_text_file(first.folder / "model.safetensors"), weights);
}

TEST(DistillChild, CurvesAreThoseOfTheCurrentOptions) {
  DistilledRun run;
  // Another user of the table, as block-local distillation is, must not hide the child's curves.
  run.db.set_current(RunTable::kCurves, "distill-blocks/decoupled", {"other"});
  DistillChildOptions options = usual_options();
  (void)run.run(options);
  options.adamw.learning_rate = 1e-3;
  const DistillChildResult result = run.run(options);
  std::map<std::string, std::int64_t> points;
  for (const CurveRow& row : run.db.curves()) {
    EXPECT_EQ(row.key, result.key);
    EXPECT_EQ(row.series, "child");
    EXPECT_EQ(row.tokens, row.step * 4 * 16);
    ++points[row.metric];
  }
  EXPECT_EQ(points["heldout_kl"], 5);
  EXPECT_EQ(points["loss"], 4);
  EXPECT_EQ(points["kl"], 4);
  options.kl_weight = 0.0;  // no KL is computed in training
  (void)run.run(options);
  EXPECT_TRUE(std::ranges::none_of(run.db.curves(),
                                   [](const CurveRow& row) { return row.metric == "kl"; }));
}

TEST(DistillChild, CheckpointedLayersTrainAlike) {
  for (const char* train : {"layers", "all"}) {
    // A first layer without anything that is trained, too.
    DistilledRun run({parse_block("none/none"), parse_block("kv1/linear"), parse_block("kv4/w32")});
    DistillChildOptions options = usual_options();
    options.lm_weight = 0.5;
    options.train = train;
    DistillChildOptions checkpointed = options;
    checkpointed.checkpoint_layers = true;
    ChildTrainer a(run.parent, run.start(), options);
    ChildTrainer b(run.parent, run.start(), checkpointed);
    const TokenBatch batch = run.calibration->slice(0, 4);
    EXPECT_CLOSE(b.add_gradients(batch, 1.0).total, a.add_gradients(batch, 1.0).total, 1e-6);
    const auto got = tensors_of(b.child());
    for (const auto& [name, tensor] : tensors_of(a.child())) {
      ASSERT_EQ(got.at(name).grad().defined(), tensor.grad().defined()) << name;
      if (tensor.grad().defined()) {
        const double size = tensor.grad().abs().max().item<double>();
        EXPECT_GT(size, 0.0) << name;
        EXPECT_CLOSE(got.at(name).grad(), tensor.grad(), 1e-5 * size) << train << " " << name;
      }
    }
    test::Elsewhere plain(run.communicator, run.folder / "plain");
    test::Elsewhere recomputed(run.communicator, run.folder / "recomputed");
    const DistillChildResult expected = run.run(options, plain.context);
    const DistillChildResult result = run.run(checkpointed, recomputed.context);
    EXPECT_GT(expected.best_step, 0);
    EXPECT_NEAR(result.kl_after, expected.kl_after, 1e-3);
  }
}

TEST(DistillChild, MicroBatchesAndRanksAddUp) {
  DistilledRun run;
  test::Elsewhere whole(run.communicator, run.folder / "whole");
  DistillChildOptions options = usual_options();
  options.num_tokens = 16 * 4 * 5;
  options.micro_windows = 4;
  const DistillChildResult one = run.run(options, whole.context);
  const auto expected = tensors_of(load_model(one.folder, at::kFloat));
  const auto expect_same = [&](const std::filesystem::path& folder) {
    for (const auto& [name, tensor] : tensors_of(load_model(folder, at::kFloat))) {
      EXPECT_CLOSE(tensor, expected.at(name), 2e-4) << name;
    }
  };
  test::Elsewhere micro(run.communicator, run.folder / "micro");
  options.micro_windows = 1;
  expect_same(run.run(options, micro.context).folder);
  // The run folder is shared, the database is rank 0's.
  const std::filesystem::path shared = run.folder / "ranks";
  make_folder(shared);
  RunDb first(shared / "run.db");
  RunDb second(run.folder / "rank1.db");
  std::vector<DistillChildResult> results(2);
  const auto run_ranks = [&] {
    test::ThreadGroup::run(2, [&](Communicator& communicator) {
      const auto rank = static_cast<std::size_t>(communicator.rank());
      RunContext context{shared, rank == 0 ? first : second, communicator};
      results[rank] = run.run(options, context);
    });
  };
  run_ranks();
  expect_same(results[0].folder);
  EXPECT_EQ(results[0].kl_after, results[1].kl_after);
  EXPECT_NEAR(results[0].kl_after, one.kl_after, 1e-4);
  EXPECT_TRUE(second.curves(RowSet::kAll).empty());
  // Rank 0 alone knows that it is done, and tells the others.
  const auto before = results[0].kl_after;
  run_ranks();
  EXPECT_EQ(results[1].kl_after, before);
}

TEST(DistillChild, KilledAnywhereItGoesOnToTheSameBytes) {
  DistilledRun run;
  DistillChildOptions options = usual_options();
  options.save_every_s = 1e-9;  // after every validation
  test::Elsewhere whole(run.communicator, run.folder / "whole");
  const DistillChildResult expected = run.run(options, whole.context);
  ASSERT_GT(expected.best_step, 0);
  test::expect_resumed_after_kills(
      run, 2, [&](RunContext& where) { return run.run(options, where); },
      [&](const DistillChildResult& result, const test::Elsewhere& where) {
        EXPECT_EQ(where.weights(), whole.weights());
        EXPECT_EQ(result.kl_before, expected.kl_before);
        EXPECT_EQ(result.kl_after, expected.kl_after);
        EXPECT_EQ(result.best_step, expected.best_step);
        EXPECT_EQ(where.curve(), whole.curve());
      });
}

TEST(DistillChild, AChangedOptionStartsAnewAndLeavesTheOtherStateAlone) {
  DistilledRun run;
  const DistillChildOptions options = [] {
    DistillChildOptions o = usual_options();
    o.save_every_s = 1e-9;
    return o;
  }();
  DistillChildOptions other = options;
  other.kl_weight = 0.5;
  test::Elsewhere whole(run.communicator, run.folder / "whole");
  (void)run.run(options, whole.context);
  const auto expected = whole.weights();
  test::Elsewhere whole_other(run.communicator, run.folder / "whole-other");
  (void)run.run(other, whole_other.context);

  const std::filesystem::path path = run.folder / "killed";
  test::DyingCommunicator dying(12, /*by_signal=*/false);
  test::Elsewhere first(dying, path);
  EXPECT_THROW((void)run.run(options, first.context), std::runtime_error);
  ASSERT_EQ(training_folders(path).size(), 1U);
  ASSERT_TRUE(std::filesystem::exists(training_folders(path).front() / "state.safetensors"));
  test::Elsewhere second(run.communicator, path);
  (void)run.run(other, second.context);
  EXPECT_EQ(second.weights(), whole_other.weights());
  EXPECT_EQ(training_folders(path).size(), 1U) << "the first state is still there";
  (void)run.run(options, second.context);
  EXPECT_EQ(second.weights(), expected);
  EXPECT_TRUE(training_folders(path).empty());
}

TEST(DistillChild, RefusesWhatTrainsNothing) {
  DistilledRun run;
  DistillChildOptions options = usual_options();
  options.cosine_weight = 0.0;
  options.kl_weight = 0.0;
  options.lm_weight = 0.0;
  EXPECT_PUZZLE_ERROR((void)run.run(options), ErrorKind::kUsage, "all 0");
  const TokenPart empty("validation", run.corpus.load(), {}, {16, true});
  EXPECT_PUZZLE_ERROR((void)distill_child(run.context, run.parent, run.input(), *run.calibration,
                                          empty, usual_options()),
                      ErrorKind::kUsage, "validation");
  options = usual_options();
  options.batch_windows = 1000;
  EXPECT_PUZZLE_ERROR((void)run.run(options), ErrorKind::kUsage, "1000");
}

// In a process of its own, because a signal's flag stays set.
TEST(DistillChildSignal, StopsAtTheNextStepAndGoesOnFromThere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const test::TempDir folder;
  const char* given = std::getenv("PUZZLE_TEST_RUN_FOLDER");  // this code runs in both processes
  const std::filesystem::path path = given != nullptr ? given : folder / "run";
  ::setenv("PUZZLE_TEST_RUN_FOLDER", path.c_str(), 1);
  DistilledRun run;
  DistillChildOptions options = usual_options();
  const auto interrupted_run = [&] {
    install_interrupt_handlers();
    // During the validation before the first step: the state saved is one within a window of
    // losses.
    test::DyingCommunicator dying(3, /*by_signal=*/true);
    test::Elsewhere first(dying, path);
    try {
      (void)run.run(options, first.context);
    } catch (const Error& error) {
      std::exit(error.kind() == ErrorKind::kInterrupted ? 3 : 4);
    }
    std::exit(5);
  };
  EXPECT_EXIT(interrupted_run(), ::testing::ExitedWithCode(3), "");
  ::unsetenv("PUZZLE_TEST_RUN_FOLDER");
  ASSERT_EQ(training_folders(path).size(), 1U);
  EXPECT_TRUE(std::filesystem::exists(training_folders(path).front() / "state.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(path / "children/child"));
  test::Elsewhere second(run.communicator, path);
  const DistillChildResult resumed = run.run(options, second.context);
  test::Elsewhere whole(run.communicator, run.folder / "whole");
  const DistillChildResult expected = run.run(options, whole.context);
  EXPECT_EQ(second.weights(), whole.weights());
  EXPECT_EQ(resumed.kl_after, expected.kl_after);
  EXPECT_EQ(second.curve(), whole.curve());
}

}  // namespace
}  // namespace puzzle
