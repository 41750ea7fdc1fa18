#include "puzzle/stages/init_library.h"

#include <limits>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/model/initialize.h"
#include "puzzle/stages/library.h"
#include "stages/library_run.h"
#include "support/expect_close.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

using test::library_spec;
using test::LibraryRun;

ModelSpec with_all_biases() {
  ModelSpec spec = library_spec();
  spec.attention_bias = true;
  spec.attention_output_bias = true;
  spec.mlp_bias = true;
  return spec;
}

TEST(InitLibrary, HoldsEveryVariantOfTheSpace) {
  for (const std::string init : {"least-squares", "paper"}) {
    for (const ModelSpec& spec : {library_spec(), with_all_biases()}) {
      LibraryRun run(spec);
      const InitLibraryResult result = run.make({.init = init});
      EXPECT_EQ(result.layers_made, 3);
      EXPECT_EQ(result.layers_found, 0);
      EXPECT_EQ(run.db.variants().size(), 3U * 6U);
      for (const VariantRow& row : run.db.variants()) {
        EXPECT_EQ(row.init, init);
        EXPECT_EQ(row.tokens, 38 * 16);
        EXPECT_GT(row.error_before, 0.0);
        EXPECT_EQ(row.loss_before.has_value(), init == "least-squares");
      }
      Architecture architecture = spec.layers;
      for (std::int64_t layer = 0; layer < 3; ++layer) {
        const LayerLibrary library = run.load(result, layer);
        const LayerSpace& space = run.space.layers[static_cast<std::size_t>(layer)];
        EXPECT_EQ(library.attention.size(), space.attention.size() - 2);
        EXPECT_EQ(library.ffn.size(), space.ffn.size() - 2);
        for (const AttentionSpec& attention : space.attention) {
          for (const FfnSpec& ffn : space.ffn) {
            architecture[static_cast<std::size_t>(layer)] = {attention, ffn};
            const ModelWeights child = make_child(run.parent.weights, result.folder, architecture);
            EXPECT_EQ(child.spec.layers, architecture);
          }
        }
      }
      const TokenBatch batch = run.validation->slice(0, 2);
      architecture = {{AttentionSpec::gqa(1), FfnSpec::swiglu(32)},
                      {AttentionSpec::linear(), FfnSpec::linear()},
                      {AttentionSpec::gqa(2), FfnSpec::none()}};
      const ModelWeights child = make_child(run.parent.weights, result.folder, architecture);
      EXPECT_TRUE(at::isfinite(forward_hidden(child, Geometry(child.spec), batch.tokens_BT))
                      .all()
                      .item<bool>());
    }
  }
}

TEST(InitLibrary, ErrorsAreThoseOfTheVariantsOnValidationTokens) {
  LibraryRun run;
  const InitLibraryResult result = run.make({});
  std::map<std::string, VariantRow> rows;
  for (const VariantRow& row : run.db.variants()) {
    rows[std::to_string(row.layer) + "/" + row.variant] = row;
  }
  const c10::NoGradGuard no_grad;
  const ModelWeights& parent = run.parent.weights;
  const at::Tensor tokens = run.validation->slice(0, 12).tokens_BT;
  const PassContext pass = make_pass(run.parent.geometry, 16, at::kFloat, at::kCPU);
  const at::Tensor x = apply_layers(parent, run.parent.geometry, embed(parent, tokens), pass, 0, 2);
  const LayerWeights& layer = parent.layers[2];
  const LayerLibrary library = run.load(result, 2);
  const auto fraction = [](const at::Tensor& error, const at::Tensor& whole) {
    return (error.square().sum() / whole.square().sum()).item<double>();
  };

  const at::Tensor after = apply_attention(layer.attention, run.parent.geometry, x, pass);
  const at::Tensor variant_after =
      apply_attention(library.attention.at(AttentionSpec::gqa(1)), run.parent.geometry, x, pass);
  EXPECT_NEAR(rows.at("2/attention/kv1").error_before, fraction(variant_after - after, after - x),
              1e-4);
  const at::Tensor out = apply_ffn(layer.ffn, run.parent.geometry, after);
  for (const FfnSpec& ffn : {FfnSpec::swiglu(32), FfnSpec::linear()}) {
    const at::Tensor variant_out = apply_ffn(library.ffn.at(ffn), run.parent.geometry, after);
    EXPECT_NEAR(rows.at("2/ffn/" + ffn.name()).error_before,
                fraction(variant_out - out, out - after), 1e-4);
  }
}

TEST(InitLibrary, TokenWeightsAreThoseOfTheBlockOutput) {
  LibraryRun run;
  const c10::NoGradGuard no_grad;
  const ModelWeights& parent = run.parent.weights;
  const at::Tensor tokens = run.calibration->slice(0, 38).tokens_BT;
  const PassContext pass = make_pass(run.parent.geometry, 16, at::kFloat, at::kCPU);
  const at::Tensor x = embed(parent, tokens);
  const ParentPass parent_pass = run_parent_layer(parent.layers[0], run.parent.geometry, x, pass);
  const at::Tensor norms = parent_pass.output.square().sum(-1);
  const auto sorted = std::get<0>(norms.flatten().sort());
  const double median = sorted[sorted.numel() / 2].item<double>();
  const std::map<std::string, at::Tensor> weights = {
      {"none", at::ones_like(norms)},
      {"inverse", 1.0 / norms},
      {"damped", 1.0 / at::clamp_min(norms, median)}};
  for (const auto& [name, wanted] : weights) {
    LayerInitializer initializer(parent.spec, parent.layers[0], run.parent.geometry,
                                 run.space.layers[0], {});
    initializer.add(parent_pass, pass, wanted);
    const at::Tensor want = initializer.solve("test").ffn.at(FfnSpec::linear()).linear;
    const InitLibraryResult result = run.make({.token_weights = name, .layers = {0}});
    EXPECT_CLOSE(run.load(result, 0).ffn.at(FfnSpec::linear()).linear, want, 1e-5) << name;
  }
}

TEST(InitLibrary, AFinishedLayerIsNotMadeAgainAndALostOneIsTheSame) {
  LibraryRun run;
  const InitLibraryResult first = run.make({});
  std::vector<std::string> files;
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    files.push_back(run.bytes(first, layer));
  }
  const auto rows = run.db.dump_json({.times = false});
  const InitLibraryResult again = run.make({});
  EXPECT_EQ(again.key, first.key);
  EXPECT_EQ(again.layers_made, 0);
  EXPECT_EQ(again.layers_found, 3);

  std::filesystem::remove(layer_file(first.folder, 1));
  const InitLibraryResult resumed = run.make({});
  EXPECT_EQ(resumed.layers_made, 1);
  EXPECT_EQ(resumed.layers_found, 2);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(run.bytes(resumed, layer), files[static_cast<std::size_t>(layer)]) << layer;
  }
  EXPECT_TRUE(run.db.dump_json({.times = false}) == rows);
}

TEST(InitLibrary, LayersOneByOneGiveTheWholeLibrary) {
  LibraryRun whole;
  const InitLibraryResult all = whole.make({});
  LibraryRun run;
  for (const std::int64_t layer : {2, 0, 1}) {
    const InitLibraryResult result = run.make({.layers = {layer}});
    EXPECT_EQ(result.key, all.key);
    EXPECT_EQ(result.layers_made, 1);
    EXPECT_EQ(run.bytes(result, layer), whole.bytes(all, layer));
  }
}

TEST(InitLibrary, KeysFollowWhatTheWeightsDependOn) {
  LibraryRun run;
  const auto key = [&](const InitLibraryOptions& options) {
    return init_library_key(run.parent, run.space, *run.calibration, options);
  };
  const std::string usual = key({});
  EXPECT_EQ(key({.layers = {1}}), usual);
  EXPECT_NE(key({.init = "paper"}), usual);
  EXPECT_NE(key({.token_weights = "none"}), usual);
  EXPECT_NE(key({.lambda = 1e-2}), usual);
  EXPECT_EQ(key({.init = "paper", .lambda = 1e-2}), key({.init = "paper"}));
  EXPECT_NE(init_library_key(run.parent, run.space, run.calibration->first_tokens(64), {}), usual);
  SearchSpace smaller = run.space;
  smaller.layers[2].ffn.pop_back();
  EXPECT_NE(init_library_key(run.parent, smaller, *run.calibration, {}), usual);
}

TEST(InitLibrary, RowsOfABaselineAreKeptButNotCurrent) {
  LibraryRun run;
  (void)run.make({.layers = {0}});
  const InitLibraryResult paper =
      init_library(run.context, run.parent, run.space, *run.calibration, *run.validation,
                   {.init = "paper", .layers = {0}}, LibraryRole::kBaseline);
  EXPECT_TRUE(std::filesystem::exists(layer_file(paper.folder, 0)));
  EXPECT_EQ(run.db.variants(RowSet::kAll).size(), 2U * 6U);
  EXPECT_EQ(run.db.variants().size(), 6U);
  EXPECT_EQ(run.db.variants().front().init, "least-squares");
}

TEST(InitLibrary, SkippedLayersNeedNoFile) {
  LibraryRun run;
  SearchSpaceOptions options;
  options.skip_layers = {1};
  run.space = make_search_space(options, run.parent.weights.spec);
  const InitLibraryResult result = run.make({});
  EXPECT_FALSE(std::filesystem::exists(layer_file(result.folder, 1)));
  EXPECT_TRUE(std::filesystem::exists(layer_file(result.folder, 2)));
  EXPECT_EQ(run.make({}).layers_found, 3);
}

TEST(InitLibrary, TwoRanksGiveTheResultOfOne) {
  LibraryRun one;
  const InitLibraryResult want = one.make({.batch_tokens = 64});
  LibraryRun two;
  InitLibraryResult got;
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    RunContext context{two.folder.path(), two.db, communicator};
    InitLibraryResult result = init_library(context, two.parent, two.space, *two.calibration,
                                            *two.validation, {.batch_tokens = 64});
    if (communicator.is_first()) {
      got = result;
    }
  });
  EXPECT_EQ(got.key, want.key);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary a = one.load(want, layer);
    const LayerLibrary b = two.load(got, layer);
    for (const auto& [spec, weights] : a.attention) {
      EXPECT_CLOSE(output_matrix(b.attention.at(spec)), output_matrix(weights), 2e-4);
    }
    for (const auto& [spec, weights] : a.ffn) {
      EXPECT_CLOSE(output_matrix(b.ffn.at(spec)), output_matrix(weights), 2e-4);
    }
  }
  const auto rows = one.db.variants();
  const auto other_rows = two.db.variants();
  ASSERT_EQ(rows.size(), other_rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_NEAR(rows[i].error_before, other_rows[i].error_before, 1e-4) << rows[i].variant;
  }
}

TEST(InitLibrary, MoreRanksThanWindowsWork) {
  LibraryRun run;
  run.calibration = run.calibration->first_tokens(32);
  run.validation = run.validation->first_tokens(32);
  test::ThreadGroup::run(3, [&](Communicator& communicator) {
    RunContext context{run.folder.path(), run.db, communicator};
    (void)init_library(context, run.parent, run.space, *run.calibration, *run.validation,
                       {.layers = {0}});
  });
  EXPECT_EQ(run.db.variants().size(), 6U);
}

TEST(InitLibrary, RefusesWhatItCannotDo) {
  LibraryRun run;
  EXPECT_PUZZLE_ERROR((void)run.make({.layers = {3}}), ErrorKind::kUsage,
                      "init_library.layers: 3, expected 0 … 2");
  const TokenPart none = run.validation->first_tokens(0);
  EXPECT_PUZZLE_ERROR((void)init_library(run.context, run.parent, run.space, *run.calibration, none,
                                         InitLibraryOptions{}),
                      ErrorKind::kUsage, "the part validation has no tokens");
  run.parent.weights.layers[1].ffn.down =
      at::full_like(run.parent.weights.layers[1].ffn.down, std::numeric_limits<float>::infinity());
  for (const std::string weights : {"damped", "none"}) {
    EXPECT_PUZZLE_ERROR((void)run.make({.token_weights = weights}), ErrorKind::kNumeric,
                        "not finite");
  }
}

TEST(InitLibrary, StatesOnDiskChangeNothing) {
  LibraryRun in_memory;
  const InitLibraryResult want = in_memory.make({});
  LibraryRun on_disk;
  const InitLibraryResult got = on_disk.make({.state_memory_mib = 0});
  EXPECT_EQ(got.key, want.key);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(on_disk.bytes(got, layer), in_memory.bytes(want, layer));
  }
}

}  // namespace
}  // namespace puzzle
