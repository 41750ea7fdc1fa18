// What the closed-form fits are worth on the real parent: SmolLM2-135M-Instruct, windows of 256
// tokens of wikitext-2, calibration tokens 0 … 32,767, held-out tokens 200,000 … 204,095. Expected
// numbers are those of an independent Python prototype on the same tokens. Minutes, not seconds:
// label "slow".
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "puzzle/base/progress.h"
#include "puzzle/data/token_file.h"
#include "puzzle/dist/single_communicator.h"
#include "puzzle/model/initialize.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/init_library.h"
#include "puzzle/tensor/device.h"
#include "puzzle/tensor/head_loss.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

constexpr std::int64_t kWindow = 256;

TokenPart windows_from(const std::string& name, const std::shared_ptr<const TokenFile>& file,
                       std::int64_t first_token, std::int64_t count) {
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < count; ++i) {
    starts.push_back(first_token + i * kWindow);
  }
  return {name, file, starts, {kWindow, true}};
}

struct ParentRun {
  ParentRun()
      : parent(open_model(test::parent_gguf(), at::kCPU, at::kFloat)),
        db(folder / "run.db"),
        context{folder.path(), db, communicator} {
    set_progress_enabled(false);
    set_num_threads(0);
    DataOptions options;
    options.sources = {test::shared_data("wikitext-2/valid.txt").string()};
    options.document_start = "none";
    options.document_end = "none";
    const auto file = load_token_file(folder / "cache", options, *parent.tokenizer);
    calibration.emplace(windows_from("calibration", file, 0, 128));
    validation.emplace(windows_from("validation", file, 200'000, 16));
  }

  test::TempDir folder;
  LoadedModel parent;
  RunDb db;
  SingleCommunicator communicator;
  RunContext context;
  std::optional<TokenPart> calibration, validation;
};

TEST(InitLibraryParent, ErrorsOfLayer5AreThoseOfThePrototype) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  PUZZLE_REQUIRE_FILE(test::shared_data("wikitext-2/valid.txt"));
  ParentRun run;
  SearchSpaceOptions space_options;
  space_options.ffn = {"parent", "w1152", "w768", "w384", "w160", "linear"};
  const SearchSpace space = make_search_space(space_options, run.parent.weights.spec);
  const std::map<std::string, std::pair<double, double>> expected = {
      {"ffn/w1152", {0.144, 0.086}},     {"ffn/w768", {0.321, 0.208}},
      {"ffn/w384", {0.551, 0.385}},      {"ffn/w160", {0.713, 0.567}},
      {"ffn/linear", {21.0, 0.541}},     {"attention/linear", {6.6, 0.363}},
      {"attention/kv1", {0.992, 0.459}},
  };
  for (const std::string init : {"paper", "least-squares"}) {
    (void)init_library(run.context, run.parent, space, *run.calibration, *run.validation,
                       {.init = init, .token_weights = "none", .layers = {5}});
    const std::vector<VariantRow> rows = run.db.variants();
    ASSERT_EQ(rows.size(), expected.size());
    for (const VariantRow& row : rows) {
      const auto [paper, least_squares] = expected.at(row.variant);
      const double want = init == "paper" ? paper : least_squares;
      EXPECT_NEAR(row.error_before, want, 0.15 * want) << init << " " << row.variant;
      GTEST_LOG_(INFO) << init << " " << row.variant << ": " << row.error_before << ", prototype "
                       << want;
    }
    GTEST_LOG_(INFO) << init << ": " << run.db.stages_of("init-library").back().seconds
                     << " s for the layer, " << describe_device(at::kCPU);
  }
}

// KL of the parent with one FFN replaced, on the validation windows.
double replaced_ffn_kl(const ParentRun& run, const HeldStates& validation, std::int64_t layer,
                       const FfnWeights& ffn) {
  const ModelWeights& parent = run.parent.weights;
  LayerWeights changed = parent.layers[static_cast<std::size_t>(layer)];
  changed.ffn = ffn;
  double kl = 0.0;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < validation.num_batches(); ++i) {
    const PassContext pass = validation.pass(i);
    const auto hidden = [&](const LayerWeights& weights) {
      const at::Tensor x = apply_layer(weights, run.parent.geometry, validation.states(i), pass);
      return final_hidden(parent, apply_layers(parent, run.parent.geometry, x, pass, layer + 1,
                                               parent.spec.num_layers()))
          .flatten(0, 1);
    };
    const HeadInput own{hidden(parent.layers[static_cast<std::size_t>(layer)]), parent.head};
    const TokenLosses losses = token_losses(&own, {hidden(changed), parent.head}, at::Tensor());
    kl += losses.kl.sum().item<double>();
    tokens += losses.kl.numel();
  }
  return kl / static_cast<double>(tokens);
}

TEST(InitLibraryParent, TokenWeightsSaveTheLinearFfnOfLayer28) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  PUZZLE_REQUIRE_FILE(test::shared_data("wikitext-2/valid.txt"));
  const c10::NoGradGuard no_grad;
  ParentRun run;
  constexpr std::int64_t kLayer = 28;
  HeldStates calibration(run.parent, *run.calibration, {}, 4096);
  HeldStates validation(run.parent, *run.validation, {}, 4096);
  for (std::int64_t layer = 0; layer < kLayer; ++layer) {
    calibration.advance(run.parent.weights.layers[layer]);
    validation.advance(run.parent.weights.layers[layer]);
  }
  const LayerWeights& parent = run.parent.weights.layers[kLayer];
  std::vector<float> norms = calibration.sampled_norms(parent, 8);
  std::ranges::nth_element(norms, norms.begin() + 2048);
  const double median = norms[2048];
  const LayerSpace space{{}, {FfnSpec::linear()}};
  std::map<std::string, double> kl;
  for (const std::string name : {"none", "inverse", "damped"}) {
    LayerInitializer initializer(run.parent.weights.spec, parent, run.parent.geometry, space, {});
    for (std::int64_t i = 0; i < calibration.num_batches(); ++i) {
      const PassContext pass = calibration.pass(i);
      const ParentPass parent_pass =
          run_parent_layer(parent, run.parent.geometry, calibration.states(i), pass);
      const at::Tensor norm2 = squared_norms(parent_pass.output);
      at::Tensor weights;
      if (name != "none") {
        weights = (name == "damped" ? norm2.clamp_min(median) : norm2).reciprocal();
      }
      initializer.add(parent_pass, pass, weights);
    }
    kl[name] = replaced_ffn_kl(run, validation, kLayer,
                               initializer.solve("layer 28").ffn.at(FfnSpec::linear()));
    GTEST_LOG_(INFO) << "layer 28, linear FFN, token weights " << name << ": " << kl[name]
                     << " nats";
  }
  EXPECT_LT(kl.at("inverse"), 0.15);
  EXPECT_LT(kl.at("damped"), 0.15);
  EXPECT_GT(kl.at("none"), kl.at("damped"));
}

}  // namespace
}  // namespace puzzle
