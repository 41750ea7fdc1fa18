#include "puzzle/stages/distill_blocks.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/options.h"
#include "puzzle/stages/block_loss.h"
#include "puzzle/stages/block_student.h"
#include "stages/library_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

DistillBlocksOptions usual_options() {
  DistillBlocksOptions options;
  options.epochs = 3;
  options.kv_learning_rate = 3e-3;
  options.ffn_learning_rate = 3e-3;
  options.linear_learning_rate = 3e-3;
  options.curve_every = 7;
  return options;
}

// A run whose library was initialised by the paper's rules, which leave much to learn.
struct DistillRun : test::LibraryRun {
  explicit DistillRun(bool cross_documents = true)
      : LibraryRun(test::library_spec(), cross_documents) {
    start = make({.init = "paper"});
  }
  DistillBlocksResult distill(const DistillBlocksOptions& options) {
    return distill(options, context, space);
  }
  DistillBlocksResult distill(const DistillBlocksOptions& options, RunContext& run_context,
                              const SearchSpace& run_space) {
    return distill_blocks(run_context, parent, {start.folder, start.key}, run_space, *calibration,
                          *validation, options);
  }
  [[nodiscard]] std::string file_bytes(const std::filesystem::path& library,
                                       std::int64_t layer) const {
    return read_text_file(layer_file(library, layer));
  }
  [[nodiscard]] LayerLibrary load_from(const std::filesystem::path& library,
                                       std::int64_t layer) const {
    return load_layer_library(layer_file(library, layer), parent.weights.spec, at::kCPU,
                              at::kFloat);
  }
  // Rows of distill-blocks by "layer/variant".
  [[nodiscard]] std::map<std::string, VariantRow> rows() const {
    std::map<std::string, VariantRow> found;
    for (const VariantRow& row : db.variants()) {
      if (row.stage == "distill-blocks") {
        found[std::to_string(row.layer) + "/" + row.variant] = row;
      }
    }
    return found;
  }

  InitLibraryResult start;
};

template <class Weights>
bool same_tensors(const Weights& a, const Weights& b) {
  std::map<std::string, at::Tensor> tensors;
  visit_tensors(a, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  tensors[name] = tensor;
                }));
  bool same = true;
  visit_tensors(b, ConstTensorVisitor([&](const std::string& name, const at::Tensor& tensor) {
                  same = same && tensors.contains(name) && at::equal(tensors[name], tensor);
                  tensors.erase(name);
                }));
  return same && tensors.empty();
}

// The losses of block_loss.h and the residual-free error, by loops over double numbers.
double naive_loss(const std::string& loss, const at::Tensor& parent, const at::Tensor& child) {
  const at::Tensor p = parent.to(at::kDouble).flatten(0, 1).contiguous();
  const at::Tensor c = child.to(at::kDouble).flatten(0, 1).contiguous();
  const auto p_at = p.accessor<double, 2>();
  const auto c_at = c.accessor<double, 2>();
  double error = 0.0, norm = 0.0, per_token = 0.0, cosine = 0.0;
  for (std::int64_t t = 0; t < p.size(0); ++t) {
    double pp = 0.0, cc = 0.0, pc = 0.0, difference = 0.0;
    for (std::int64_t d = 0; d < p.size(1); ++d) {
      pp += p_at[t][d] * p_at[t][d];
      cc += c_at[t][d] * c_at[t][d];
      pc += p_at[t][d] * c_at[t][d];
      difference += (p_at[t][d] - c_at[t][d]) * (p_at[t][d] - c_at[t][d]);
    }
    error += difference;
    norm += pp;
    per_token += difference / pp;
    cosine += 1.0 - pc / std::sqrt(pp * cc);
  }
  const auto tokens = static_cast<double>(p.size(0));
  return loss == "mse" ? error / norm : loss == "token-mse" ? per_token / tokens : cosine / tokens;
}

TEST(DistillBlocks, LowersTheHeldOutLoss) {
  for (const std::string loss : {"mse", "token-mse", "cosine"}) {
    DistillRun run;
    DistillBlocksOptions options = usual_options();
    options.loss = loss;
    const DistillBlocksResult result = run.distill(options);
    EXPECT_EQ(result.layers_made, 3);
    EXPECT_EQ(result.layers_found, 0);
    const auto rows = run.rows();
    EXPECT_EQ(rows.size(), 3U * 6U);
    for (const auto& [name, row] : rows) {
      EXPECT_EQ(row.kept, "after") << loss << " " << name;
      EXPECT_LT(*row.loss_after, *row.loss_before) << loss << " " << name;
      if (loss != "cosine") {  // which does not care for lengths
        EXPECT_LT(*row.error_after, row.error_before) << loss << " " << name;
      }
      EXPECT_EQ(row.tokens, 3 * 38 * 16);
      EXPECT_EQ(row.init, "paper");
    }
  }
}

TEST(DistillBlocks, LossesAndErrorsAreThoseOfTheFormulas) {
  for (const bool cross_documents : {true, false}) {
    DistillRun run(cross_documents);
    const c10::NoGradGuard no_grad;
    const ModelWeights& parent = run.parent.weights;
    const TokenBatch tokens = run.validation->slice(0, 12);
    PassContext pass = make_pass(run.parent.geometry, 16, at::kFloat, at::kCPU);
    pass.mask = tokens.attention_mask();
    EXPECT_EQ(pass.mask.defined(), !cross_documents);
    const at::Tensor x =
        apply_layers(parent, run.parent.geometry, embed(parent, tokens.tokens_BT), pass, 0, 1);
    const at::Tensor out = apply_layer(parent.layers[1], run.parent.geometry, x, pass);
    for (const std::string loss : {"mse", "token-mse", "cosine"}) {
      DistillBlocksOptions options = usual_options();
      options.loss = loss;
      options.layers = {1};
      const DistillBlocksResult result = run.distill(options);
      const auto rows = run.rows();
      const BlockSpec own = parent.layers[1].spec();
      for (const BlockSpec& block :
           {BlockSpec{AttentionSpec::gqa(1), own.ffn}, BlockSpec{AttentionSpec::linear(), own.ffn},
            BlockSpec{own.attention, FfnSpec::swiglu(32)},
            BlockSpec{own.attention, FfnSpec::linear()}}) {
        const bool is_ffn = block.attention == own.attention;
        const VariantRow& row =
            rows.at(is_ffn ? "1/ffn/" + block.ffn.name() : "1/attention/" + block.attention.name());
        for (const bool is_after : {false, true}) {
          const LayerLibrary library =
              run.load_from(is_after ? result.folder : run.start.folder, 1);
          const at::Tensor child =
              apply_layer(make_block(parent, library, 1, block), run.parent.geometry, x, pass);
          const double want = naive_loss(loss, out, child);
          EXPECT_NEAR(is_after ? *row.loss_after : *row.loss_before, want, 1e-4 * want + 1e-7)
              << loss << " " << block.name();
          const double error = naive_loss("mse", out - x, child - x);
          EXPECT_NEAR(is_after ? *row.error_after : row.error_before, error, 1e-4 * error)
              << loss << " " << block.name();
        }
      }
    }
  }
}

TEST(DistillBlocks, IsNeverWorseThanItsStart) {
  DistillRun run;
  DistillBlocksOptions options = usual_options();
  options.kv_learning_rate = options.ffn_learning_rate = options.linear_learning_rate = 1.0;
  const DistillBlocksResult result = run.distill(options);
  for (const auto& [name, row] : run.rows()) {
    EXPECT_EQ(row.kept, "before") << name;
    EXPECT_GT(*row.loss_after, *row.loss_before) << name;
  }
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary before = run.load_from(run.start.folder, layer);
    const LayerLibrary after = run.load_from(result.folder, layer);
    ASSERT_EQ(before.attention.size(), after.attention.size());
    ASSERT_EQ(before.ffn.size(), after.ffn.size());
    for (const auto& [spec, weights] : before.attention) {
      EXPECT_TRUE(same_tensors(weights, after.attention.at(spec))) << spec.name();
    }
    for (const auto& [spec, weights] : before.ffn) {
      EXPECT_TRUE(same_tensors(weights, after.ffn.at(spec))) << spec.name();
    }
  }
}

TEST(DistillBlocks, LeavesParentStartAndNormsUntouched) {
  DistillRun run;
  const LayerWeights parent_before = clone(run.parent.weights.layers[1], false);
  const std::string start_before = run.file_bytes(run.start.folder, 1);
  const DistillBlocksResult result = run.distill(usual_options());
  EXPECT_NE(result.folder, run.start.folder);
  EXPECT_TRUE(same_tensors(parent_before, run.parent.weights.layers[1]));
  EXPECT_EQ(run.file_bytes(run.start.folder, 1), start_before);
  const LayerLibrary before = run.load_from(run.start.folder, 1);
  const LayerLibrary after = run.load_from(result.folder, 1);
  for (const auto& [spec, weights] : after.attention) {
    EXPECT_TRUE(at::equal(weights.norm, parent_before.attention.norm));
    EXPECT_FALSE(at::equal(output_matrix(weights), output_matrix(before.attention.at(spec))));
  }
  for (const auto& [spec, weights] : after.ffn) {
    EXPECT_TRUE(at::equal(weights.norm, parent_before.ffn.norm));
    EXPECT_FALSE(at::equal(output_matrix(weights), output_matrix(before.ffn.at(spec))));
  }
  EXPECT_TRUE(after.coupled.empty());
}

TEST(DistillBlocks, AFinishedLayerIsNotMadeAgainAndALostOneIsTheSame) {
  DistillRun run;
  const DistillBlocksResult first = run.distill(usual_options());
  std::vector<std::string> files;
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    files.push_back(run.file_bytes(first.folder, layer));
  }
  const auto rows = run.db.dump_json({.times = false});
  const DistillBlocksResult again = run.distill(usual_options());
  EXPECT_EQ(again.key, first.key);
  EXPECT_EQ(again.layers_made, 0);
  EXPECT_EQ(again.layers_found, 3);

  std::filesystem::remove(layer_file(first.folder, 1));
  const DistillBlocksResult resumed = run.distill(usual_options());
  EXPECT_EQ(resumed.layers_made, 1);
  EXPECT_EQ(resumed.layers_found, 2);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(run.file_bytes(resumed.folder, layer), files[static_cast<std::size_t>(layer)]);
  }
  EXPECT_TRUE(run.db.dump_json({.times = false}) == rows);
}

TEST(DistillBlocks, LayersOneByOneGiveTheWholeLibrary) {
  DistillRun whole;
  const DistillBlocksResult all = whole.distill(usual_options());
  DistillRun run;
  for (const std::int64_t layer : {2, 0, 1}) {
    DistillBlocksOptions options = usual_options();
    options.layers = {layer};
    const DistillBlocksResult result = run.distill(options);
    EXPECT_EQ(result.key, all.key);
    EXPECT_EQ(result.layers_made, 1);
    EXPECT_EQ(run.file_bytes(result.folder, layer), whole.file_bytes(all.folder, layer)) << layer;
  }
}

TEST(DistillBlocks, AVariantDoesNotDependOnTheOthers) {
  DistillRun run;
  const DistillBlocksResult all = run.distill(usual_options());
  SearchSpace smaller = run.space;
  for (LayerSpace& layer : smaller.layers) {
    layer.attention = {layer.attention[0], AttentionSpec::linear()};
    layer.ffn = {layer.ffn[0], FfnSpec::swiglu(32)};
  }
  const DistillBlocksResult few = run.distill(usual_options(), run.context, smaller);
  EXPECT_NE(few.key, all.key);
  EXPECT_EQ(run.rows().size(), 3U * 2U);  // those of the run before are not current any more
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary a = run.load_from(all.folder, layer);
    const LayerLibrary b = run.load_from(few.folder, layer);
    EXPECT_TRUE(same_tensors(a.attention.at(AttentionSpec::linear()),
                             b.attention.at(AttentionSpec::linear())));
    EXPECT_TRUE(same_tensors(a.ffn.at(FfnSpec::swiglu(32)), b.ffn.at(FfnSpec::swiglu(32))));
    // A variant outside the space is carried over as it was.
    EXPECT_TRUE(same_tensors(run.load_from(run.start.folder, layer).ffn.at(FfnSpec::linear()),
                             b.ffn.at(FfnSpec::linear())));
  }
}

TEST(DistillBlocks, TrainsCoupledPairsAndKeepsTheHalves) {
  DistillRun run;
  const DistillBlocksResult halves = run.distill(usual_options());
  DistillBlocksOptions options = usual_options();
  options.mode = "coupled";
  options.pairs = {"kv1/w32", "1:linear/none"};
  const auto couple = [&] {
    return distill_blocks(run.context, run.parent, {halves.folder, halves.key}, run.space,
                          *run.calibration, *run.validation, options);
  };
  const DistillBlocksResult result = couple();
  const auto rows = run.rows();
  EXPECT_EQ(rows.size(), 3U * 6U + 4U);  // the halves' rows stay
  for (const char* name :
       {"0/block/kv1/w32", "1/block/kv1/w32", "2/block/kv1/w32", "1/block/linear/none"}) {
    EXPECT_EQ(rows.at(name).kept, "after") << name;
    EXPECT_LT(*rows.at(name).loss_after, *rows.at(name).loss_before) << name;
    EXPECT_EQ(rows.at(name).init, "paper");
  }
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary before = run.load_from(halves.folder, layer);
    const LayerLibrary after = run.load_from(result.folder, layer);
    EXPECT_EQ(after.coupled.size(), layer == 1 ? 2U : 1U);
    const LayerWeights& pair = after.coupled.at({AttentionSpec::gqa(1), FfnSpec::swiglu(32)});
    EXPECT_TRUE(same_tensors(before.attention.at(AttentionSpec::gqa(1)),
                             after.attention.at(AttentionSpec::gqa(1))));
    EXPECT_TRUE(
        same_tensors(before.ffn.at(FfnSpec::swiglu(32)), after.ffn.at(FfnSpec::swiglu(32))));
    EXPECT_FALSE(at::equal(pair.attention.k, before.attention.at(AttentionSpec::gqa(1)).k));
    EXPECT_FALSE(at::equal(pair.ffn.gate, before.ffn.at(FfnSpec::swiglu(32)).gate));
    EXPECT_TRUE(at::equal(pair.ffn.norm, before.ffn.at(FfnSpec::swiglu(32)).norm));
  }
  const std::string bytes = run.file_bytes(result.folder, 1);
  std::filesystem::remove(layer_file(result.folder, 1));
  EXPECT_EQ(couple().layers_found, 2);
  EXPECT_EQ(run.file_bytes(result.folder, 1), bytes);
  // A new decoupled pass makes the old pairs outdated.
  (void)run.distill(usual_options());
  EXPECT_EQ(run.rows().size(), 3U * 6U);
}

TEST(DistillBlocks, OtherRanksWaitForTheFirst) {
  DistillRun one;
  const DistillBlocksResult want = one.distill(usual_options());
  DistillRun two;
  std::vector<DistillBlocksResult> got(2);
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext context{two.folder.path(), two.db, communicator};
    got[static_cast<std::size_t>(communicator.rank())] =
        two.distill(usual_options(), context, two.space);
  });
  for (const DistillBlocksResult& result : got) {
    EXPECT_EQ(result.key, want.key);
    EXPECT_EQ(result.layers_made, 3);
  }
  EXPECT_EQ(two.rows().size(), one.rows().size());
  EXPECT_EQ(two.file_bytes(got[1].folder, 2).size(), one.file_bytes(want.folder, 2).size());
}

TEST(DistillBlocks, RecordsCurvesFromStartToEnd) {
  DistillRun run;
  DistillBlocksOptions options = usual_options();
  options.layers = {2};
  (void)run.distill(options);
  const VariantRow row = run.rows().at("2/ffn/w32");
  std::map<std::string, std::vector<CurveRow>> curves;
  for (const CurveRow& point : run.db.curves()) {
    if (point.series == "layer 2/ffn/w32") {
      curves[point.metric].push_back(point);
    }
  }
  ASSERT_EQ(curves["heldout_loss"].size(), 2U);
  EXPECT_EQ(curves["heldout_loss"][0].step, 0);
  EXPECT_EQ(curves["heldout_loss"][0].value, *row.loss_before);
  EXPECT_EQ(curves["heldout_loss"][1].step, 30);
  EXPECT_EQ(curves["heldout_loss"][1].tokens, 3 * 38 * 16);
  EXPECT_EQ(curves["heldout_loss"][1].value, *row.loss_after);
  EXPECT_EQ(curves["heldout_error"].size(), 2U);
  std::vector<std::int64_t> steps;
  for (const CurveRow& point : curves["loss"]) {
    steps.push_back(point.step);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{7, 14, 21, 28, 30}));
  EXPECT_LT(curves["loss"].back().value, curves["loss"].front().value);
}

TEST(DistillBlocks, KeysFollowWhatTheWeightsDependOn) {
  DistillRun run;
  const auto key = [&](const DistillBlocksOptions& options) {
    return distill_blocks_key(run.context, run.parent, {run.start.folder, run.start.key}, run.space,
                              *run.calibration, *run.validation, options);
  };
  const std::string usual = key({});
  DistillBlocksOptions same;
  same.layers = {1};
  same.num_tokens = 1 << 20;  // the part has fewer
  EXPECT_EQ(key(same), usual);
  std::vector<DistillBlocksOptions> others(7);
  others[0].num_tokens = 64;
  others[1].loss = "mse";
  others[2].epochs = 2;
  others[3].validation_tokens = 64;
  others[4].ffn_learning_rate = 1e-2;
  others[5].adamw.clip_norm = 0.0;
  others[6].schedule.final_fraction = 0.1;
  std::map<std::string, int> keys = {{usual, 1}};
  for (const DistillBlocksOptions& other : others) {
    EXPECT_EQ(++keys[key(other)], 1);
  }
  run.context.seed = 1;
  EXPECT_EQ(++keys[key({})], 1);
}

TEST(DistillBlocks, RefusesWhatItCannotDo) {
  DistillRun run;
  const auto distill = [&](const std::string& mode, const std::vector<std::string>& pairs) {
    DistillBlocksOptions options = usual_options();
    options.mode = mode;
    options.pairs = pairs;
    (void)run.distill(options);
  };
  EXPECT_PUZZLE_ERROR(distill("coupled", {}), ErrorKind::kUsage, "name at least one");
  EXPECT_PUZZLE_ERROR(distill("decoupled", {"kv1/w32"}), ErrorKind::kUsage, "take the pairs out");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"3:kv1/w32"}), ErrorKind::kUsage, "from 0 to 2");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"kv1/w33"}), ErrorKind::kUsage, "'kv1/w33'");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"kv4/w96"}), ErrorKind::kUsage, "something to train");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"none/none"}), ErrorKind::kUsage, "something to train");
  DistillBlocksOptions options = usual_options();
  options.layers = {3};
  EXPECT_PUZZLE_ERROR((void)run.distill(options), ErrorKind::kUsage,
                      "distill_blocks.layers: 3, expected 0 … 2");
  const TokenPart none = run.validation->first_tokens(0);
  EXPECT_PUZZLE_ERROR(
      (void)distill_blocks(run.context, run.parent, {run.start.folder, run.start.key}, run.space,
                           *run.calibration, none, usual_options()),
      ErrorKind::kUsage, "the part validation has no tokens");
  SearchSpace larger = run.space;
  larger.layers[0].ffn.push_back(FfnSpec::swiglu(48));
  EXPECT_PUZZLE_ERROR((void)run.distill(usual_options(), run.context, larger), ErrorKind::kUsage,
                      "layer 0 has no variant ffn/w48");
  run.parent.weights.layers[1].ffn.down =
      at::full_like(run.parent.weights.layers[1].ffn.down, std::numeric_limits<float>::infinity());
  EXPECT_PUZZLE_ERROR((void)run.distill(usual_options()), ErrorKind::kNumeric,
                      "layer 1: the parent's outputs are not finite");
  move_to(run.parent.weights, at::kCPU, at::kBFloat16);
  EXPECT_PUZZLE_ERROR((void)run.distill(usual_options()), ErrorKind::kUsage, "expected fp32");
}

TEST(DistillBlocks, DescribesItsOptions) {
  DistillBlocksOptions options;
  OptionList list;
  list.section("distill_blocks", options);
  list.set_assignment("distill_blocks.ffn_learning_rate=0.25");
  EXPECT_EQ(options.ffn_learning_rate, 0.25);
  EXPECT_PUZZLE_ERROR(list.set_assignment("distill_blocks.loss=huber"), ErrorKind::kUsage,
                      "token-mse");
}

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
