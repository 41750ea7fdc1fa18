#include "puzzle/stages/repair.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "stages/child_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

struct RepairRun : test::ChildRun {
  using ChildRun::ChildRun;
  RepairResult run(const RepairOptions& options) { return run(options, context); }
  RepairResult run(const RepairOptions& options, RunContext& where) {
    return repair(where, parent, {start_folder, start_key, "child"}, *calibration, *validation,
                  options);
  }
};

// Everything a part's tokens do in one walk, kept whole: [N, D] states in fp64.
struct NaiveStates {
  at::Tensor parent, child;
};

at::Tensor in_double(const at::Tensor& x) { return x.defined() ? x.detach().to(at::kDouble) : x; }

LayerWeights double_layer(const LayerWeights& layer) {
  LayerWeights copy = layer;
  visit_tensors(copy, TensorVisitor([](const std::string&, at::Tensor& t) { t = in_double(t); }));
  return copy;
}

at::Tensor output_of(const LayerWeights& layer, bool is_attention) {
  return is_attention ? output_matrix(layer.attention) : output_matrix(layer.ffn);
}

at::Tensor features_of(const LayerWeights& layer, bool is_attention, const Geometry& geometry,
                       const at::Tensor& x, const PassContext& pass) {
  return is_attention ? attention_features(layer.attention, geometry,
                                           attention_input(layer.attention, geometry, x), pass)
                      : ffn_features(layer.ffn, ffn_input(layer.ffn, geometry, x));
}

at::Tensor half_of(const LayerWeights& layer, bool is_attention, const Geometry& geometry,
                   const at::Tensor& x, const PassContext& pass) {
  return is_attention ? apply_attention(layer.attention, geometry, x, pass)
                      : apply_ffn(layer.ffn, geometry, x);
}

// The definition, solved as one tall least-squares problem in fp64 by QR: rows √w·(x, y − W x) and
// √ridge·(I, 0).
at::Tensor naive_refit(const at::Tensor& x_NF, const at::Tensor& y_ND, const at::Tensor& w_N,
                       const at::Tensor& current_DF, double lambda) {
  const at::Tensor root = w_N.sqrt().unsqueeze(1);
  const at::Tensor residual = y_ND - x_NF.matmul(current_DF.t());
  const double ridge = lambda * ((x_NF * root).square().sum(0).mean().item<double>());
  const std::int64_t F = x_NF.size(1);
  const at::Tensor a = at::cat({x_NF * root, at::eye(F, x_NF.options()) * std::sqrt(ridge)});
  const at::Tensor b = at::cat({residual * root, at::zeros({F, y_ND.size(1)}, y_ND.options())});
  const auto [q, r] = at::linalg_qr(a);
  return current_DF + at::linalg_solve_triangular(r, q.t().matmul(b), true).t();
}

// Matrices that read norm(x), if the output matrix is another.
template <class Visit>
void visit_inputs(LayerWeights& layer, bool is_attention, const Visit& visit) {
  if (is_attention && layer.attention.q.defined()) {
    visit(" q", layer.attention.q);
    visit(" k", layer.attention.k);
    visit(" v", layer.attention.v);
  } else if (!is_attention && layer.ffn.gate.defined()) {
    visit(" gate", layer.ffn.gate);
    visit(" up", layer.ffn.up);
  }
}

// W(I + M) with the M of the grid that best predicts, on the second part, how far the parent's
// normalised input is from the child's. `parts` hold the states that enter the sub-block.
void naive_input_correction(LayerWeights& child, bool is_attention, const Geometry& geometry,
                            const std::vector<NaiveStates>& parts,
                            const std::vector<double>& lambdas) {
  const auto rows = [&](std::size_t p) {
    const auto input = [&](const at::Tensor& x) {
      const at::Tensor xn = is_attention ? attention_input(child.attention, geometry, x)
                                         : ffn_input(child.ffn, geometry, x);
      return xn.defined() ? xn.flatten(0, 1) : xn;
    };
    const at::Tensor own = input(parts[p].child);
    return std::pair(own, own.defined() ? input(parts[p].parent) - own : own);
  };
  const auto [x, y] = rows(0);
  const auto [held_x, held_y] = rows(1);
  if (!x.defined()) {
    return;
  }
  at::Tensor best = at::zeros({x.size(1), x.size(1)}, x.options());
  double best_error = held_y.square().sum().item<double>();
  for (const double lambda : lambdas) {
    const at::Tensor m = naive_refit(x, y, at::ones({x.size(0)}, x.options()),
                                     at::zeros({x.size(1), x.size(1)}, x.options()), lambda);
    const double error = (held_y - held_x.matmul(m.t())).square().sum().item<double>();
    if (error < best_error) {
      best_error = error;
      best = m;
    }
  }
  visit_inputs(child, is_attention,
               [&](const char*, at::Tensor& matrix) { matrix = matrix + matrix.matmul(best); });
}

at::Tensor naive_weights(const at::Tensor& parent_ND, double median, const std::string& rule) {
  const at::Tensor norms = parent_ND.square().sum(-1);
  if (rule == "none") {
    return at::ones_like(norms);
  }
  return norms.clamp_min(rule == "damped" ? median : 1e-20).reciprocal();
}

// The whole stage without batches, files or sums: the matrices by name of the layer
// and half.
std::map<std::string, at::Tensor> naive_repair(const RepairRun& run, const RepairOptions& options) {
  const c10::NoGradGuard no_grad;
  const Geometry& geometry = run.parent.geometry;
  std::map<std::string, at::Tensor> matrices;
  std::vector<NaiveStates> parts;
  std::vector<PassContext> passes;
  for (const TokenPart* part : {&*run.calibration, &*run.validation}) {
    const TokenBatch batch = part->slice(0, part->num_windows());
    const at::Tensor x = in_double(embed(run.parent.weights, batch.tokens_BT));
    parts.push_back({x, x});
    passes.push_back(make_pass(geometry, x.size(1), at::kDouble, at::kCPU));
    passes.back().mask = batch.attention_mask();
  }
  const ModelWeights start = run.start();
  for (std::size_t i = 0; i < start.layers.size(); ++i) {
    LayerWeights child = double_layer(start.layers[i]);
    const LayerWeights parent = double_layer(run.parent.weights.layers[i]);
    for (const bool is_attention : {true, false}) {
      if (options.inputs) {
        naive_input_correction(child, is_attention, geometry, parts, options.lambdas);
      }
      for (std::size_t p = 0; p < 2; ++p) {
        parts[p].parent = half_of(parent, is_attention, geometry, parts[p].parent, passes[p]);
      }
      const at::Tensor current = output_of(child, is_attention);
      if (!current.defined()) {
        continue;
      }
      const at::Tensor& bias = is_attention ? child.attention.o_bias : child.ffn.down_bias;
      const auto rows = [&](std::size_t p) {
        const at::Tensor x = features_of(child, is_attention, geometry, parts[p].child, passes[p]);
        at::Tensor y = parts[p].parent - parts[p].child;
        y = bias.defined() ? y - bias : y;
        return std::pair(x.reshape({-1, x.size(-1)}), y.reshape({-1, y.size(-1)}));
      };
      const at::Tensor norms = std::get<0>(parts[0].parent.square().sum(-1).reshape({-1}).sort());
      const double median = norms[norms.size(0) / 2].item<double>();
      const auto weights = [&](std::size_t p) {
        return naive_weights(parts[p].parent, median, options.token_weights).reshape({-1});
      };
      const auto [x, y] = rows(0);
      const auto [held_x, held_y] = rows(1);
      at::Tensor best = current;
      double best_error = std::numeric_limits<double>::infinity();
      std::vector<at::Tensor> candidates = {current};
      for (const double lambda : options.lambdas) {
        candidates.push_back(naive_refit(x, y, weights(0), current, lambda));
      }
      for (const at::Tensor& candidate : candidates) {
        const at::Tensor squares = (held_y - held_x.matmul(candidate.t())).square().sum(-1);
        const double error = (squares * weights(1)).sum().item<double>();
        if (error < best_error) {
          best_error = error;
          best = candidate;
        }
      }
      visit_inputs(child, is_attention, [&](const char* name, at::Tensor& matrix) {
        matrices[std::to_string(i) + name] = matrix;
      });
      matrices[std::to_string(i) + (is_attention ? " attention" : " ffn")] = best;
      if (is_attention) {
        set_output_matrix(child.attention, best);
      } else {
        set_output_matrix(child.ffn, best);
      }
      for (std::size_t p = 0; p < 2; ++p) {
        parts[p].child = half_of(child, is_attention, geometry, parts[p].child, passes[p]);
      }
    }
  }
  return matrices;
}

std::map<std::string, at::Tensor> matrices_of(ModelWeights model) {
  std::map<std::string, at::Tensor> matrices;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    for (const bool is_attention : {true, false}) {
      const at::Tensor matrix = output_of(model.layers[i], is_attention);
      if (matrix.defined()) {
        matrices[std::to_string(i) + (is_attention ? " attention" : " ffn")] = matrix;
      }
      visit_inputs(model.layers[i], is_attention, [&](const char* name, at::Tensor& input) {
        matrices[std::to_string(i) + name] = input;
      });
    }
  }
  return matrices;
}

// Tokens that passed attention and FFN on this thread while it lives, one per layer and pass.
class PassedTokens {
 public:
  PassedTokens() {
    attention_ = 0;
    ffn_ = 0;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&count).needsInputs(true));
  }
  ~PassedTokens() { at::removeCallback(handle_); }
  PassedTokens(const PassedTokens&) = delete;
  PassedTokens& operator=(const PassedTokens&) = delete;
  PassedTokens(PassedTokens&&) = delete;
  PassedTokens& operator=(PassedTokens&&) = delete;
  [[nodiscard]] static std::pair<std::int64_t, std::int64_t> attention_and_ffn() {
    return {attention_, ffn_};
  }

 private:
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
    const std::string_view name = function.name();
    if (name == "aten::scaled_dot_product_attention") {
      const at::Tensor q_BHTE = function.inputs()[0].toTensor();
      attention_ += q_BHTE.size(0) * q_BHTE.size(2);
    } else if (name == "aten::silu") {
      const at::Tensor gate = function.inputs()[0].toTensor();
      ffn_ += gate.numel() / gate.size(-1);
    }
    return nullptr;
  }

  inline static thread_local std::int64_t attention_ = 0;
  inline static thread_local std::int64_t ffn_ = 0;
  at::CallbackHandle handle_{};
};

TEST(Repair, IsTheRidgeRefitOfEveryMatrix) {
  for (const auto& [rule, inputs] :
       {std::pair("none", false), {"inverse", true}, {"damped", false}, {"damped", true}}) {
    RepairRun run;
    RepairOptions options;
    options.token_weights = rule;
    options.inputs = inputs;
    options.batch_tokens = 48;  // three windows of 16
    const RepairResult result = run.run(options);
    ASSERT_GT(result.refitted, 0) << rule;
    const auto expected = naive_repair(run, options);
    const auto found = matrices_of(load_model(result.folder, at::kFloat));
    ASSERT_EQ(found.size(), expected.size());
    std::int64_t changed = 0;
    const auto before = matrices_of(run.start());
    for (const auto& [name, matrix] : expected) {
      const double size = matrix.abs().max().item<double>();
      EXPECT_CLOSE(found.at(name), matrix, 2e-4 * size) << rule << " " << name;
      changed += at::equal(found.at(name), before.at(name)) ? 0 : 1;
    }
    EXPECT_EQ(changed, result.refitted) << rule;
  }
}

TEST(Repair, BeginsAtTheFirstChangedLayer) {
  RepairRun run({parse_block("kv4/w96"), parse_block("none/w32"), parse_block("linear/w64")});
  const RepairResult result = run.run({});
  ASSERT_GT(result.refitted, 0);
  const auto expected = naive_repair(run, {});
  const auto before = matrices_of(run.start());
  for (const auto& [name, matrix] : matrices_of(load_model(result.folder, at::kFloat))) {
    EXPECT_CLOSE(matrix, expected.at(name), 2e-4 * matrix.abs().max().item<double>()) << name;
    if (name.starts_with("0 ")) {
      EXPECT_TRUE(at::equal(matrix, before.at(name))) << name;
    }
  }
}

TEST(Repair, LowersTheHeldOutKlAndChangesNothingElse) {
  RepairRun run;
  const RepairResult result = run.run({});
  EXPECT_EQ(result.folder, run.folder / "children/child");
  EXPECT_NEAR(result.kl_before, run.naive_kl(run.start_folder), 1e-5);
  EXPECT_NEAR(result.kl_after, run.naive_kl(result.folder), 1e-5);
  EXPECT_LT(result.kl_after, result.kl_before);
  const auto matrices = matrices_of(run.start());
  std::map<std::string, at::Tensor> start;
  visit_tensors(run.start(), ConstTensorVisitor([&](const std::string& name, const at::Tensor& t) {
                  start[name] = t;
                }));
  std::size_t changed = 0;
  visit_tensors(load_model(result.folder, at::kFloat),
                ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  changed += at::equal(tensor, start.at(name)) ? 0 : 1;
                }));
  EXPECT_EQ(changed, static_cast<std::size_t>(result.refitted));
  EXPECT_LE(changed, matrices.size());
}

TEST(Repair, PassesACalibrationTokenOnceThroughTheParentAndOnceOrTwiceThroughTheChild) {
  RepairRun run({parse_block("kv2/w64"), parse_block("kv2/w32"), parse_block("kv1/w64")});
  const std::int64_t num_tokens = run.calibration->num_tokens();
  const auto passed = [&](std::int64_t tokens, std::int64_t memory_mib) {
    RepairOptions options;
    options.state_memory_mib = memory_mib;
    test::Elsewhere where(run.communicator, run.folder / fmt::format("{}-{}", tokens, memory_mib));
    const PassedTokens counted;
    (void)repair(where.context, run.parent, {run.start_folder, run.start_key, "child"},
                 run.calibration->first_tokens(tokens), *run.validation, options);
    return PassedTokens::attention_and_ffn();
  };
  for (const auto& [memory_mib, passes] : {std::pair(4096, 2), std::pair(0, 3)}) {
    // The difference leaves out what held-out tokens pass.
    const auto [attention, ffn] = passed(num_tokens, memory_mib);
    const auto [fewer_attention, fewer_ffn] = passed(num_tokens / 2, memory_mib);
    EXPECT_EQ(attention - fewer_attention, passes * 3 * num_tokens / 2) << memory_mib;
    EXPECT_EQ(ffn - fewer_ffn, passes * 3 * num_tokens / 2) << memory_mib;
  }
}

TEST(Repair, KeepsTheChildWhereNothingIsGained) {
  // The parent's own blocks leave no error to undo.
  RepairRun run({parse_block("kv4/w96"), parse_block("kv4/w96"), parse_block("kv4/w96")});
  const RepairResult result = run.run({});
  EXPECT_NEAR(result.kl_before, 0.0, 1e-6);
  EXPECT_EQ(result.kl_after, result.kl_before);
  EXPECT_EQ(result.refitted, 0);
  EXPECT_NEAR(run.naive_kl(result.folder), 0.0, 1e-6);
}

TEST(Repair, AGainWithinItsOwnErrorIsNotKept) {
  // Little is broken, and 960 tokens do not tell how to mend it.
  RepairRun run({parse_block("kv4/w96"), parse_block("kv2/w96"), parse_block("kv4/w64")});
  const RepairResult result = run.run({});
  EXPECT_GT(result.kl_before, 0.01);
  EXPECT_EQ(result.kl_after, result.kl_before);
  EXPECT_EQ(result.refitted, 0);
  const auto before = matrices_of(run.start());
  for (const auto& [name, matrix] : matrices_of(load_model(result.folder, at::kFloat))) {
    EXPECT_TRUE(at::equal(matrix, before.at(name))) << name;
  }
}

TEST(Repair, AKilledRunGoesOnToTheSameBits) {
  RepairRun run;
  const RepairOptions options;
  test::Elsewhere whole(run.communicator, run.folder / "whole");
  const RepairResult expected = run.run(options, whole.context);
  test::expect_resumed_after_kills(
      run, 3, [&](RunContext& where) { return run.run(options, where); },
      [&](const RepairResult& result, const test::Elsewhere& where) {
        EXPECT_EQ(where.weights(), whole.weights());
        EXPECT_EQ(result.kl_after, expected.kl_after);
        EXPECT_EQ(result.refitted, expected.refitted);
        EXPECT_FALSE(where.has_leftovers());
      });
}

TEST(Repair, AStateLeftByAFinishedRepairIsRemoved) {
  RepairRun run;
  test::Elsewhere where(run.communicator, run.folder / "elsewhere");
  const RepairResult result = run.run({}, where.context);
  make_folder(result.folder.string() + ".repair-" + result.key.substr(0, 8));
  ASSERT_TRUE(where.has_leftovers());
  EXPECT_EQ(run.run({}, where.context).key, result.key);
  EXPECT_FALSE(where.has_leftovers());
}

TEST(Repair, AFinishedRepairIsNotDoneAgain) {
  RepairRun run;
  const RepairResult first = run.run({});
  const auto written = std::filesystem::last_write_time(first.folder / "model.safetensors");
  RepairOptions options;
  options.state_memory_mib = 0;  // changes no result
  const RepairResult second = run.run(options);
  EXPECT_EQ(second.key, first.key);
  EXPECT_EQ(second.kl_before, first.kl_before);
  EXPECT_EQ(second.kl_after, first.kl_after);
  EXPECT_EQ(second.refitted, first.refitted);
  EXPECT_EQ(std::filesystem::last_write_time(first.folder / "model.safetensors"), written);
  options.lambdas = {1.0};
  EXPECT_NE(run.run(options).key, first.key);
}

TEST(Repair, TwoRanksGiveTheResultOfOne) {
  RepairRun run;
  RepairOptions options;
  ASSERT_EQ(options.token_weights, "damped") << "the median is of all ranks' tokens";
  test::Elsewhere alone(run.communicator, run.folder / "alone");
  const RepairResult expected = run.run(options, alone.context);
  const auto path = run.folder / "group";
  make_folder(path);
  RunDb first(path / "rank0.db");
  RunDb second(path / "rank1.db");
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext context{path, communicator.rank() == 0 ? first : second, communicator};
    const RepairResult result = run.run(options, context);
    EXPECT_NEAR(result.kl_after, expected.kl_after, 1e-5);
    EXPECT_EQ(result.refitted, expected.refitted);
  });
  const auto found = matrices_of(load_model(path / "children/child", at::kFloat));
  for (const auto& [name, matrix] :
       matrices_of(load_model(alone.context.folder / "children/child", at::kFloat))) {
    EXPECT_CLOSE(found.at(name), matrix, 1e-4 * matrix.abs().max().item<double>()) << name;
  }
}

TEST(Repair, RefusesEmptyParts) {
  RepairRun run;
  const TokenPart empty("calibration", run.corpus.load(), {}, {16, true});
  EXPECT_PUZZLE_ERROR(
      (void)repair(run.context, run.parent, {run.start_folder, run.start_key, "child"}, empty,
                   *run.validation, {}),
      ErrorKind::kUsage, "data.calibration_tokens");
}

}  // namespace
}  // namespace puzzle
