#include "puzzle/stages/score_gradient.h"

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/base/hash.h"
#include "puzzle/stages/layer_gradients.h"
#include "puzzle/stages/score.h"
#include "stages/scored_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

std::map<test::ScoreName, ScoreRow> rows_of_method(const RunDb& db, const std::string& method) {
  std::vector<ScoreRow> rows = db.scores();
  std::erase_if(rows, [&](const ScoreRow& row) { return row.method != method; });
  return test::scores_by_name(rows);
}

LayerWeights in_double(LayerWeights weights) {
  visit_tensors(weights,
                [](const std::string&, at::Tensor& tensor) { tensor = tensor.to(at::kDouble); });
  return weights;
}

// Log-probabilities of a fp64 copy of the parent, perturbed behind one layer.
class PerturbedParent {
 public:
  explicit PerturbedParent(const test::ScoredRun& run) : geometry_(run.parent.geometry) {
    model_ = run.parent.weights;
    model_.embedding = model_.embedding.to(at::kDouble);
    model_.head = model_.head.to(at::kDouble);
    model_.final_norm = model_.final_norm.to(at::kDouble);
    for (LayerWeights& layer : model_.layers) {
      layer = in_double(layer);
    }
  }

  [[nodiscard]] at::Tensor input(const at::Tensor& tokens_T, std::int64_t layer) const {
    return apply_layers(model_, geometry_, embed(model_, tokens_T.unsqueeze(0)), pass(tokens_T), 0,
                        layer);
  }
  // What `block` changes in the layer's output on the parent's own input, [1, T, D].
  [[nodiscard]] at::Tensor delta(const at::Tensor& tokens_T, std::int64_t layer,
                                 const LayerWeights& block) const {
    const at::Tensor x = input(tokens_T, layer);
    return apply_layer(in_double(block), geometry_, x, pass(tokens_T)) -
           apply_layer(model_.layers[static_cast<std::size_t>(layer)], geometry_, x,
                       pass(tokens_T));
  }
  // [T, V], with `change` added to the output of `layer`.
  [[nodiscard]] at::Tensor log_probs(const at::Tensor& tokens_T, std::int64_t layer,
                                     const at::Tensor& change) const {
    const at::Tensor x = input(tokens_T, layer + 1) + change;
    const at::Tensor last =
        apply_layers(model_, geometry_, x, pass(tokens_T), layer + 1, model_.spec.num_layers());
    return at::log_softmax(at::linear(final_hidden(model_, last), model_.head), -1)[0];
  }

 private:
  [[nodiscard]] PassContext pass(const at::Tensor& tokens_T) const {
    return make_pass(geometry_, tokens_T.size(0), at::kDouble, at::kCPU);
  }
  ModelWeights model_;
  Geometry geometry_;
};

struct NaiveEstimates {
  double per_sequence = 0.0;
  double per_token = 0.0;
};

// What a block changes of its layer's output: the sum of what its halves do, each beside the
// parent's other half, or what they do together.
enum class PairDelta { kSumOfHalves, kTogether };

// By central differences of the drawn labels' log-probability, one position at a time.
NaiveEstimates naive_estimates(const test::ScoredRun& run, std::int64_t layer,
                               const BlockSpec& block, std::int64_t samples,
                               PairDelta pair = PairDelta::kSumOfHalves) {
  constexpr double kStep = 1e-4;
  const PerturbedParent parent(run);
  const auto index = static_cast<std::size_t>(layer);
  const BlockSpec own = run.parent.weights.layers[index].spec();
  const std::array<LayerWeights, 2> halves = {
      run.replaced(layer, {block.attention, own.ffn}).layers[index],
      run.replaced(layer, {own.attention, block.ffn}).layers[index]};
  const TokenPart& part = *run.validation;
  const at::Tensor uniforms =
      window_uniforms(derive_seed(static_cast<std::uint64_t>(run.context.seed), "score/gradient"),
                      0, part.num_windows(), part.window(), samples);
  NaiveEstimates sums;
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    const at::Tensor tokens = part.slice(w, 1).tokens_BT[0];
    const at::Tensor delta =
        pair == PairDelta::kTogether
            ? parent.delta(tokens, layer, run.replaced(layer, block).layers[index])
            : parent.delta(tokens, layer, halves[0]) + parent.delta(tokens, layer, halves[1]);
    const at::Tensor p = parent.log_probs(tokens, layer, at::zeros_like(delta)).exp();
    for (std::int64_t s = 0; s < samples; ++s) {
      std::vector<std::int64_t> labels;
      for (std::int64_t t = 0; t < part.window(); ++t) {
        double sum = 0.0;
        std::int64_t label = 0;
        for (; label + 1 < p.size(1); ++label) {
          sum += p[t][label].item<double>();
          if (uniforms[w][t][s].item<double>() < sum) {
            break;
          }
        }
        labels.push_back(label);
      }
      const auto log_likelihood = [&](const at::Tensor& change) {
        const at::Tensor log_p = parent.log_probs(tokens, layer, change);
        double sum = 0.0;
        for (std::size_t t = 0; t < labels.size(); ++t) {
          sum += log_p[static_cast<std::int64_t>(t)][labels[t]].item<double>();
        }
        return sum;
      };
      double sequence = 0.0;
      for (std::int64_t t = 0; t < part.window(); ++t) {
        at::Tensor change = at::zeros_like(delta);
        change.select(1, t).copy_(delta.select(1, t) * kStep);
        const double a = (log_likelihood(change) - log_likelihood(-change)) / (2.0 * kStep);
        sequence += a;
        sums.per_token += 0.5 * a * a / static_cast<double>(samples);
      }
      sums.per_sequence += 0.5 * sequence * sequence / static_cast<double>(samples);
    }
  }
  sums.per_sequence /= static_cast<double>(part.num_tokens());
  sums.per_token /= static_cast<double>(part.num_tokens());
  return sums;
}

struct GradientRun : test::ScoredRun {
  ScoreResult run(const std::string& method, RunContext& where, std::int64_t samples = 2,
                  std::int64_t batch = 5) {
    ScoreOptions options;
    options.method = method;
    options.samples = samples;
    options.batch_windows = batch;
    return score(where, parent, {library.folder, library.key}, space, *validation, options);
  }
  ScoreResult run(const std::string& method) { return run(method, context); }
  [[nodiscard]] RunContext with(RunDb& other) { return {folder.path(), other, communicator}; }
};

TEST(ScoreGradient, EstimatesAreThoseOfFiniteDifferences) {
  GradientRun run;
  const ScoreResult result = run.run("gradient");
  EXPECT_EQ(result.num_candidates, 3 * 8);
  const auto rows = rows_of_method(run.db, "gradient");
  EXPECT_EQ(rows.size(), 4U * 3U * (8U + 16U));  // metrics, layers, halves and whole blocks
  for (const auto& [layer, name] : std::vector<std::pair<std::int64_t, std::string>>{
           {0, "kv1/w96"}, {1, "kv4/linear"}, {1, "kv1/w32"}, {2, "none/linear"}}) {
    const NaiveEstimates naive = naive_estimates(run, layer, parse_block(name), 2);
    const double sequence = rows.at({layer, name, "kl_per_sequence"}).value;
    const double token = rows.at({layer, name, "kl_per_token"}).value;
    EXPECT_NEAR(sequence, naive.per_sequence, 1e-3 * naive.per_sequence + 1e-6) << name;
    EXPECT_NEAR(token, naive.per_token, 1e-3 * naive.per_token + 1e-6) << name;
    EXPECT_GT(token, 1e-4);
    EXPECT_GT(rows.at({layer, name, "kl"}).value, 0.0);
    EXPECT_GT(rows.at({layer, name, "kl"}).standard_error, 0.0);
  }
}

// What the sum leaves out is at most of the size of the whole, here where blocks are random, and
// does not change the order.
TEST(ScoreGradient, PairsAreNearThoseOfTheWholeBlocks) {
  GradientRun run;
  (void)run.run("gradient");
  const auto rows = rows_of_method(run.db, "gradient");
  double before = 0.0;
  for (const char* name : {"kv2/w64", "none/linear"}) {
    const NaiveEstimates whole =
        naive_estimates(run, 1, parse_block(name), 2, PairDelta::kTogether);
    const double sum = rows.at({1, name, "kl_per_token"}).value;
    EXPECT_GT(sum, 0.5 * whole.per_token) << name;
    EXPECT_LT(sum, 2.0 * whole.per_token) << name;
    EXPECT_GT(sum, before) << name;
    EXPECT_GT(whole.per_token, before) << name;
    before = std::max(sum, whole.per_token);
  }
}

// Largest ‖δ_t‖ / ‖h_t‖ over tokens of states ten times as long as their window's median.
double naive_giant_change(const test::ScoredRun& run, std::int64_t layer, const BlockSpec& block) {
  const PerturbedParent parent(run);
  const LayerWeights weights = run.replaced(layer, block).layers[static_cast<std::size_t>(layer)];
  double largest = 0.0;
  for (std::int64_t w = 0; w < run.validation->num_windows(); ++w) {
    const at::Tensor tokens = run.validation->slice(w, 1).tokens_BT[0];
    const at::Tensor state = parent.input(tokens, layer + 1)[0];
    const at::Tensor delta = parent.delta(tokens, layer, weights)[0];
    std::vector<double> norms;
    for (std::int64_t t = 0; t < state.size(0); ++t) {
      norms.push_back(state[t].norm().item<double>());
    }
    std::vector<double> sorted = norms;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[(sorted.size() - 1) / 2];
    for (std::size_t t = 0; t < norms.size(); ++t) {
      if (norms[t] > 10.0 * median) {
        largest =
            std::max(largest, delta[static_cast<std::int64_t>(t)].norm().item<double>() / norms[t]);
      }
    }
  }
  return largest;
}

TEST(ScoreGradient, SaysWhatChangesGiantTokens) {
  GradientRun run;
  (void)run.run("gradient");
  for (const auto& [name, row] : rows_of_method(run.db, "gradient")) {
    if (std::get<2>(name) == "giant_change") {
      EXPECT_EQ(row.value, 0.0) << "no token is a giant";
    }
  }
  const std::int64_t token = run.validation->slice(1, 1).tokens_BT[0][3].item<std::int64_t>();
  run.parent.weights.embedding = run.parent.weights.embedding.clone();
  run.parent.weights.embedding[token].mul_(1e4);
  run.parent.key += " with a giant";
  (void)run.run("gradient");
  const auto rows = rows_of_method(run.db, "gradient");
  for (const auto& [layer, name] : std::vector<std::pair<std::int64_t, std::string>>{
           {0, "kv4/none"}, {1, "linear/w96"}, {2, "kv4/w32"}}) {
    const double want = naive_giant_change(run, layer, parse_block(name));
    EXPECT_GT(want, 0.0);
    EXPECT_NEAR(rows.at({layer, name, "giant_change"}).value, want, 1e-3 * want) << name;
  }
  const double attention = rows.at({1, "linear/w96", "giant_change"}).value;
  const double ffn = rows.at({1, "kv4/none", "giant_change"}).value;
  EXPECT_EQ(rows.at({1, "linear/none", "giant_change"}).value, std::max(attention, ffn));
}

// a of a whole block is the sum of its halves', so no estimate is outside (√A ± √F)².
TEST(ScoreGradient, WholeBlocksComeFromTheirHalves) {
  GradientRun run;
  (void)run.run("gradient");
  const auto rows = rows_of_method(run.db, "gradient");
  for (const std::string metric : {"kl_per_sequence", "kl_per_token"}) {
    bool differs_from_sum = false;
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      const double a = rows.at({layer, "kv1/w96", metric}).value;
      const double f = rows.at({layer, "kv4/w32", metric}).value;
      const double pair = rows.at({layer, "kv1/w32", metric}).value;
      const double most = std::sqrt(a) + std::sqrt(f);
      const double least = std::sqrt(a) - std::sqrt(f);
      EXPECT_LE(pair, most * most * 1.0001);
      EXPECT_GE(pair, least * least * 0.9999);
      differs_from_sum = differs_from_sum || std::abs(pair - a - f) > 1e-3 * (a + f);
    }
    EXPECT_TRUE(differs_from_sum);
  }
}

// With small changes and many labels the estimate is the exact score.
TEST(ScoreGradient, SmallDamageIsEstimatedRight) {
  GradientRun run;
  // Scale the last third of the parent's own down projection down, so that cutting it is a small
  // change.
  for (LayerWeights& layer : run.parent.weights.layers) {
    layer.ffn.down = layer.ffn.down.clone();
    layer.ffn.down.narrow(1, 64, 32).mul_(0.02);
  }
  for (std::int64_t layer = 0; layer < 3; ++layer) {  // variants near the parent's own
    const auto file = layer_file(run.library.folder, layer);
    LayerLibrary library = run.load(run.library, layer);
    const LayerWeights& own = run.parent.weights.layers[static_cast<std::size_t>(layer)];
    for (auto& [spec, ffn] : library.ffn) {
      if (spec.kind == FfnKind::kSwiglu) {
        const std::int64_t width = spec.width;
        ffn.gate = own.ffn.gate.narrow(0, 0, width).clone();
        ffn.up = own.ffn.up.narrow(0, 0, width).clone();
        ffn.down = own.ffn.down.narrow(1, 0, width).clone();
      }
    }
    std::filesystem::remove(file);
    save_layer_library(file, library);
  }
  (void)run.run("gradient", run.context, 256);
  const auto estimates = rows_of_method(run.db, "gradient");
  RunDb db(run.folder / "exact.db");
  RunContext context = run.with(db);
  (void)run.run("replace-one", context);
  for (const auto& [name, row] : rows_of_method(db, "replace-one")) {
    const auto& [layer, block, metric] = name;
    if (metric == "kl" && block == "kv4/w64") {
      const double estimate = estimates.at({layer, block, "kl_per_sequence"}).value;
      EXPECT_GT(row.value, 1e-6);
      EXPECT_NEAR(estimate / row.value, 1.0, 0.12) << layer << " " << row.value;
    }
  }
}

TEST(ScoreGradient, NeitherBatchesNorRanksChangeIt) {
  GradientRun run;
  (void)run.run("gradient");
  const auto expected = rows_of_method(run.db, "gradient");
  const auto expect_same = [&](const RunDb& db) {
    const auto rows = rows_of_method(db, "gradient");
    ASSERT_EQ(rows.size(), expected.size());
    for (const auto& [name, row] : expected) {
      EXPECT_EQ(rows.at(name).key, row.key);
      EXPECT_NEAR(rows.at(name).value, row.value, 1e-4 * row.value + 1e-7);
    }
  };
  RunDb other(run.folder / "batch.db");
  RunContext context = run.with(other);
  (void)run.run("gradient", context, 2, 3);
  expect_same(other);
  std::vector<std::unique_ptr<RunDb>> dbs;
  for (int rank = 0; rank < 13; ++rank) {  // one of them without a window
    dbs.push_back(std::make_unique<RunDb>(run.folder / ("rank" + std::to_string(rank) + ".db")));
  }
  test::ThreadGroup::run(13, [&](Communicator& communicator) {
    RunContext rank{run.folder.path(), *dbs[static_cast<std::size_t>(communicator.rank())],
                    communicator};
    (void)run.run("gradient", rank);
  });
  EXPECT_TRUE(dbs[1]->scores(RowSet::kAll).empty());
  expect_same(*dbs[0]);
}

TEST(ScoreGradient, IsNotMadeAgain) {
  GradientRun run;
  const ScoreResult first = run.run("gradient");
  EXPECT_EQ(first.num_scored_now, first.num_candidates);
  const ScoreResult second = run.run("gradient");
  EXPECT_EQ(second.num_scored_now, 0);
  EXPECT_EQ(second.key, first.key);
  EXPECT_EQ(run.run("gradient", run.context, 3).num_scored_now, first.num_candidates);
}

TEST(ScoreGradient, NamesAVariantThatIsNotFinite) {
  GradientRun run;
  const auto file = layer_file(run.library.folder, 1);
  LayerLibrary library = run.load(run.library, 1);
  at::Tensor& down = library.ffn.at(FfnSpec::swiglu(32)).down;
  down = at::full_like(down, std::numeric_limits<float>::infinity());
  std::filesystem::remove(file);
  save_layer_library(file, library);
  EXPECT_PUZZLE_ERROR(run.run("gradient"), ErrorKind::kNumeric, "layer 1, kv4/w32");
}

}  // namespace
}  // namespace puzzle
