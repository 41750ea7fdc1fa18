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
#include "stages/distill_run.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::DistillRun;
using test::naive_loss;
using test::same_tensors;
using test::usual_options;

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

TEST(DistillBlocks, RecordsCurvesFromStartToEnd) {
  DistillRun run;
  DistillBlocksOptions options = usual_options();
  options.layers = {2};
  options.curve_batches = 100;  // all held-out windows, as for the rows
  (void)run.distill(options);
  const VariantRow row = run.rows().at("2/ffn/w32");
  std::map<std::string, std::vector<CurveRow>> curves;
  for (const CurveRow& point : run.db.curves()) {
    if (point.series == "layer 2/ffn/w32") {
      curves[point.metric].push_back(point);
    }
  }
  EXPECT_EQ(curves["heldout_loss"].front().value, *row.loss_before);
  EXPECT_EQ(curves["heldout_loss"].back().value, *row.loss_after);
  EXPECT_EQ(curves["heldout_loss"].back().tokens, 3 * 38 * 16);
  EXPECT_EQ(curves["heldout_error"].front().value, row.error_before);
  EXPECT_EQ(curves["heldout_error"].back().value, *row.error_after);
  const auto steps = [&](const char* metric) {
    std::vector<std::int64_t> found;
    for (const CurveRow& point : curves[metric]) {
      found.push_back(point.step);
    }
    return found;
  };
  EXPECT_EQ(steps("loss"), (std::vector<std::int64_t>{7, 14, 21, 28, 30}));
  EXPECT_EQ(steps("heldout_loss"), (std::vector<std::int64_t>{0, 7, 14, 21, 28, 30}));
  EXPECT_EQ(steps("heldout_error"), steps("heldout_loss"));
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
  same.curve_every = 3;       // how training is drawn and where states lie does not train
  same.curve_batches = 2;
  same.state_memory_mib = 1;
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

TEST(DistillBlocks, TrainsOnTheSourcesThatAreNamed) {
  DistillRun run;
  const test::ToyCorpus corpus({DistillRun::documents(), test::toy_documents('a', 640, 24)});
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < 100; ++i) {  // 60 windows of the first source, 40 of the second
    starts.push_back(16 * i);
  }
  run.calibration.emplace("train", corpus.load(), starts,
                          TokenPart::Layout{16, true, corpus.options.sources});
  DistillBlocksOptions options = usual_options();
  options.num_tokens = 1 << 20;
  const auto key = [&](const TokenPart& train) {
    return distill_blocks_key(run.context, run.parent, {run.start.folder, run.start.key}, run.space,
                              train, *run.validation, options);
  };
  const DistillBlocksResult all = run.distill(options);
  EXPECT_EQ(all.key, key(*run.calibration));
  options.sources = {corpus.options.sources[1]};
  const TokenPart second = run.calibration->of_sources(options.sources);
  EXPECT_EQ(second.num_windows(), 40);
  const DistillBlocksResult named = run.distill(options);
  EXPECT_EQ(named.key, key(second));
  EXPECT_NE(key(second), key(*run.calibration));

  DistillRun alone;  // whose train part has nothing else
  alone.calibration = second;
  options.sources = {};
  const DistillBlocksResult want = alone.distill(options);
  const LayerLibrary got_layer = run.load_from(named.folder, 1);
  const LayerLibrary want_layer = alone.load_from(want.folder, 1);
  const LayerLibrary of_all = run.load_from(all.folder, 1);
  for (const auto& [spec, weights] : want_layer.attention) {
    EXPECT_TRUE(same_tensors(got_layer.attention.at(spec), weights)) << spec.name();
    EXPECT_FALSE(same_tensors(of_all.attention.at(spec), weights)) << spec.name();
  }
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
  EXPECT_PUZZLE_ERROR(distill("coupled", {"kv1"}), ErrorKind::kUsage,
                      "distill_blocks.pairs: 'kv1': ");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"kv1/w96"}), ErrorKind::kUsage,
                      "one half is the parent's own");
  EXPECT_PUZZLE_ERROR(distill("coupled", {"none/none"}), ErrorKind::kUsage, "nothing to train");
  DistillBlocksOptions options = usual_options();
  options.layers = {3};
  EXPECT_PUZZLE_ERROR((void)run.distill(options), ErrorKind::kUsage,
                      "distill_blocks.layers: 3, expected 0 … 2");
  options = usual_options();
  options.sources = {"elsewhere"};
  EXPECT_PUZZLE_ERROR((void)run.distill(options), ErrorKind::kUsage,
                      "'elsewhere' is none of the sources");
  const TokenPart none = run.validation->first_tokens(0);
  EXPECT_PUZZLE_ERROR(
      (void)distill_blocks(run.context, run.parent, {run.start.folder, run.start.key}, run.space,
                           *run.calibration, none, usual_options()),
      ErrorKind::kUsage, "the part validation has no tokens");
  SearchSpace larger = run.space;
  larger.layers[0].ffn.push_back(FfnSpec::swiglu(80));
  EXPECT_PUZZLE_ERROR((void)run.distill(usual_options(), run.context, larger), ErrorKind::kUsage,
                      "layer 0 has no variant ffn/w80");
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

}  // namespace
}  // namespace puzzle
