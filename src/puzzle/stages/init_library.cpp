#include "puzzle/stages/init_library.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/model/initialize.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/layer_walk.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/token_weights.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other weights or rows.
constexpr int kInitLibraryVersion = 2;
constexpr const char* kInitLibraryStage = "init-library";

bool is_paper(const InitLibraryOptions& options) { return options.init == "paper"; }

// Σ‖y − ŷ‖² and Σ‖y‖² over validation tokens, plain and under the token weights, added up where the
// model is: the device is read once per layer.
struct ErrorSums {
  enum { kError, kNorm, kWeightedError, kWeightedNorm };

  void add(const at::Tensor& y, const at::Tensor& variant_y, const at::Tensor& token_weights) {
    const at::Tensor error_N = squared_norms(y.to(at::kFloat) - variant_y.to(at::kFloat));
    const at::Tensor norm_N = squared_norms(y);
    const auto sum = [&](const at::Tensor& x, bool weighted) {
      return (weighted && token_weights.defined() ? x * token_weights : x).sum(at::kDouble);
    };
    const at::Tensor more =
        at::stack({sum(error_N, false), sum(norm_N, false), sum(error_N, true), sum(norm_N, true)});
    sums_4 = sums_4.defined() ? sums_4 + more : more;
  }
  [[nodiscard]] double operator[](std::int64_t which) const { return sums_4[which].item<double>(); }

  at::Tensor sums_4;  // fp64
};

double error_fraction(double error, double norm) {
  if (norm > 0.0) {
    return error / norm;
  }
  return error > 0.0 ? std::numeric_limits<double>::infinity() : 0.0;
}

class LibraryMaker {
 public:
  LibraryMaker(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
               const TokenPart& calibration, const TokenPart& validation,
               const InitLibraryOptions& options);
  InitLibraryResult make(LibraryRole role);

 private:
  [[nodiscard]] bool has_variants(std::int64_t layer) const;
  void name_current_rows();
  void make_layer(std::int64_t layer, Progress& progress);
  void skip_layer(std::int64_t layer, Progress& progress);
  [[nodiscard]] double median_norm2(const LayerWeights& layer, const std::string& place) const;
  [[nodiscard]] at::Tensor token_weights(const at::Tensor& output_BTD, double median) const;
  std::map<std::string, ErrorSums> measure_errors(std::int64_t layer, const LayerVariants& variants,
                                                  double median);
  void reduce(std::map<std::string, ErrorSums>& errors);
  void record(std::int64_t layer, const LayerVariants& variants,
              const std::map<std::string, ErrorSums>& errors, double median, double seconds);
  [[nodiscard]] const LayerWeights& parent_layer(std::int64_t layer) const {
    return parent_.weights.layers[static_cast<std::size_t>(layer)];
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const SearchSpace& space_;
  const TokenPart& calibration_;
  const TokenPart& validation_;
  const InitLibraryOptions& options_;
  std::string key_;
  std::filesystem::path folder_;
  std::vector<std::string> layer_keys_;
  std::optional<HeldStates> calibration_states_;
  std::optional<HeldStates> validation_states_;
};

LibraryMaker::LibraryMaker(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                           const TokenPart& calibration, const TokenPart& validation,
                           const InitLibraryOptions& options)
    : context_(context),
      parent_(parent),
      space_(space),
      calibration_(calibration),
      validation_(validation),
      options_(options),
      key_(init_library_key(parent, space, calibration, options)),
      folder_(library_folder(context.folder, key_)) {
  const std::int64_t num_layers = parent.weights.spec.num_layers();
  PUZZLE_CHECK(std::ssize(space.layers) == num_layers, "a search space of {} layers, parent {}",
               space.layers.size(), num_layers);
  for (const TokenPart* part : {&calibration, &validation}) {
    if (part->num_windows() == 0) {
      fail(ErrorKind::kUsage, "init-library: the part {} has no tokens; raise data.{}_tokens",
           part->name(), part->name());
    }
  }
  for (const std::int64_t layer : options.layers) {
    if (layer >= num_layers) {
      fail(ErrorKind::kUsage, "init_library.layers: {}, expected 0 … {}, the parent's layers",
           layer, num_layers - 1);
    }
  }
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    KeyBuilder key;
    key.add("library", key_).add("layer", layer).add("validation", validation.content_key());
    layer_keys_.push_back(key.key());
  }
  context.communicator.agree("init-library: the library's key", key_);
}

bool LibraryMaker::has_variants(std::int64_t layer) const {
  const LayerSpace& layer_space = space_.layers[static_cast<std::size_t>(layer)];
  const BlockSpec own = parent_layer(layer).spec();
  return std::ranges::any_of(layer_space.attention,
                             [&](const AttentionSpec& variant) {
                               return variant != own.attention && variant != AttentionSpec::none();
                             }) ||
         std::ranges::any_of(layer_space.ffn, [&](const FfnSpec& variant) {
           return variant != own.ffn && variant != FfnSpec::none();
         });
}

void LibraryMaker::name_current_rows() {
  if (context_.communicator.is_first()) {
    context_.db.set_current(RunTable::kVariants, kInitLibraryStage, layer_keys_);
  }
}

InitLibraryResult LibraryMaker::make(LibraryRole role) {
  if (role == LibraryRole::kRun) {
    name_current_rows();
  }
  const LayerWalk walk =
      plan_layer_walk(context_, layer_keys_, options_.layers, [&](std::int64_t layer) {
        return !has_variants(layer) || std::filesystem::exists(layer_file(folder_, layer));
      });
  const InitLibraryResult result{
      .key = key_, .folder = folder_, .layers_made = walk.num_made, .layers_found = walk.num_found};
  if (walk.num_layers() == 0) {
    return result;
  }
  const RankShare share = rank_share(context_.communicator);
  with_place(kInitLibraryStage, [&] {
    StateMemory memory{options_.state_memory_mib << 20, context_.folder};
    validation_states_.emplace(parent_, validation_, share, options_.batch_tokens, memory);
    memory.bytes -= validation_states_->memory_bytes();
    calibration_states_.emplace(parent_, calibration_, share, options_.batch_tokens, memory);
  });
  Progress progress(kInitLibraryStage, walk.num_layers() * calibration_states_->num_windows(),
                    "windows");
  walk_layers(
      walk, kInitLibraryStage, [&](std::int64_t layer) { make_layer(layer, progress); },
      [&](std::int64_t layer) { skip_layer(layer, progress); });
  return result;
}

void LibraryMaker::skip_layer(std::int64_t layer, Progress& progress) {
  calibration_states_->advance(parent_layer(layer));
  validation_states_->advance(parent_layer(layer));
  progress.skip(calibration_states_->num_windows());
  progress.advance(0);
}

void LibraryMaker::make_layer(std::int64_t layer, Progress& progress) {
  const Stopwatch watch;
  const std::string place = fmt::format("init-library, layer {}", layer);
  const LayerWeights& weights = parent_layer(layer);
  const bool is_damped = !is_paper(options_) && options_.token_weights == "damped";
  const double median = is_damped ? median_norm2(weights, place) : 0.0;

  const LayerInitOptions init_options{
      is_paper(options_) ? InitMethod::kPaper : InitMethod::kLeastSquares, options_.lambda};
  LayerInitializer initializer(parent_.weights.spec, weights, parent_.geometry,
                               space_.layers[static_cast<std::size_t>(layer)], init_options);
  for (std::int64_t i = 0; i < calibration_states_->num_batches(); ++i) {
    const PassContext pass = calibration_states_->pass(i);
    const ParentPass parent_pass =
        run_parent_layer(weights, parent_.geometry, calibration_states_->states(i), pass);
    initializer.add(parent_pass, pass, token_weights(parent_pass.output, median));
    calibration_states_->replace(i, parent_pass.output);
    progress.advance(calibration_states_->num_windows(i), fmt::format("layer {}", layer));
  }
  initializer.visit_sums([&](at::Tensor& sum) { context_.communicator.all_reduce_sum(sum); });
  const LayerVariants variants = initializer.solve(place);
  const std::map<std::string, ErrorSums> errors = measure_errors(layer, variants, median);
  if (context_.communicator.is_first()) {
    record(layer, variants, errors, median, watch.seconds());
  }
  context_.communicator.barrier();
}

// The sampled tokens' outputs are needed before the first sum is made, so they go through the layer
// twice.
double LibraryMaker::median_norm2(const LayerWeights& layer, const std::string& place) const {
  const std::int64_t stride = std::max<std::int64_t>(1, calibration_.num_tokens() / kMedianTokens);
  const std::vector<float> mine = calibration_states_->sampled_norms(layer, stride);
  return median_over_ranks(mine, context_.communicator, place);
}

at::Tensor LibraryMaker::token_weights(const at::Tensor& output_BTD, double median) const {
  return is_paper(options_) ? at::Tensor()
                            : puzzle::token_weights(output_BTD, options_.token_weights, median);
}

std::map<std::string, ErrorSums> LibraryMaker::measure_errors(std::int64_t layer,
                                                              const LayerVariants& variants,
                                                              double median) {
  std::map<std::string, ErrorSums> errors;
  for (const auto& [spec, weights] : variants.attention) {
    errors["attention/" + spec.name()] = {};
  }
  for (const auto& [spec, weights] : variants.ffn) {
    errors["ffn/" + spec.name()] = {};
  }
  for (const std::int64_t width : variants.widths) {
    errors["ffn/" + FfnSpec::swiglu(width).name()] = {};
  }
  std::optional<NestedForward> nested;
  if (variants.nested) {
    nested.emplace(*variants.nested);
  }
  for (std::int64_t i = 0; i < validation_states_->num_batches(); ++i) {
    const PassContext pass = validation_states_->pass(i);
    const ParentPass parent = run_parent_layer(parent_layer(layer), parent_.geometry,
                                               validation_states_->states(i), pass);
    const at::Tensor importance = token_weights(parent.output, median);
    for (const auto& [spec, weights] : variants.attention) {
      const at::Tensor features =
          attention_features(weights, parent_.geometry, parent.attention_xn, pass);
      errors["attention/" + spec.name()].add(parent.attention_y,
                                             attention_output(weights, features), importance);
    }
    for (const auto& [spec, weights] : variants.ffn) {
      const at::Tensor features = ffn_features(weights, parent.ffn_xn);
      errors["ffn/" + spec.name()].add(parent.ffn_y, ffn_output(weights, features), importance);
    }
    if (nested) {
      nested->visit(parent.ffn_xn, variants.widths, [&](std::size_t index, const at::Tensor& y) {
        const FfnSpec spec = FfnSpec::swiglu(variants.widths[index]);
        errors["ffn/" + spec.name()].add(parent.ffn_y, y, importance);
      });
    }
    validation_states_->replace(i, parent.output);
  }
  reduce(errors);
  return errors;
}

// Over ranks, and to the CPU.
void LibraryMaker::reduce(std::map<std::string, ErrorSums>& errors) {
  if (errors.empty()) {
    return;
  }
  std::vector<at::Tensor> sums;
  for (const auto& [name, variant] : errors) {
    // A rank may have no validation window.
    sums.push_back(variant.sums_4.defined()
                       ? variant.sums_4
                       : at::zeros({4}, parent_.weights.embedding.options().dtype(at::kDouble)));
  }
  at::Tensor all = at::stack(sums).to(at::kCPU);
  context_.communicator.all_reduce_sum(all);
  std::int64_t row = 0;
  for (auto& [name, variant] : errors) {
    variant.sums_4 = all[row++];
  }
}

void LibraryMaker::record(std::int64_t layer, const LayerVariants& variants,
                          const std::map<std::string, ErrorSums>& errors, double median,
                          double seconds) {
  const std::string& key = layer_keys_[static_cast<std::size_t>(layer)];
  std::vector<VariantRow> rows;
  for (const auto& [name, sums] : errors) {
    VariantRow row{.key = key, .layer = layer, .variant = name, .stage = kInitLibraryStage};
    row.init = options_.init;
    const double error = sums[ErrorSums::kError];
    const double norm = sums[ErrorSums::kNorm];
    row.error_before = error_fraction(error, norm);
    if (!std::isfinite(error) || !std::isfinite(norm)) {
      fail(ErrorKind::kNumeric, "init-library, layer {}, {}: outputs are not finite", layer, name);
    }
    if (!is_paper(options_)) {
      row.loss_before =
          error_fraction(sums[ErrorSums::kWeightedError], sums[ErrorSums::kWeightedNorm]);
    }
    row.tokens = calibration_.num_tokens();
    row.kept = "before";
    rows.push_back(std::move(row));
  }
  if (!rows.empty()) {
    LayerLibrary library;
    library.attention = variants.attention;
    library.ffn = variants.ffn;
    library.nested = variants.nested;
    save_layer_library(layer_file(folder_, layer), library,
                       {{"puzzle.stage", kInitLibraryStage},
                        {"puzzle.key", key_},
                        {"puzzle.init", options_.init}});
  }
  Json detail = {{"calibration_tokens", calibration_.num_tokens()},
                 {"validation_tokens", validation_.num_tokens()}};
  if (median > 0.0) {
    detail["median_squared_norm"] = median;
  }
  if (!variants.raised_lambda.empty()) {
    detail["raised_lambda"] = variants.raised_lambda;
  }
  RunTransaction transaction(context_.db);
  context_.db.put(rows);
  context_.db.put(StageRecord{.key = key,
                              .stage = kInitLibraryStage,
                              .what = fmt::format("layer {}", layer),
                              .seconds = seconds,
                              .detail_json = detail.dump()});
  transaction.commit();
  log_debug("init-library, layer {}: {} variants in {:.1f} s", layer, rows.size(), seconds);
}

}  // namespace

std::string init_library_key(const LoadedModel& parent, const SearchSpace& space,
                             const TokenPart& calibration, const InitLibraryOptions& options) {
  KeyBuilder key;
  key.add("stage", kInitLibraryStage).add("version", kInitLibraryVersion);
  key.add("parent", parent.key).add("calibration", calibration.content_key());
  key.add("type", c10::toString(parent.weights.embedding.scalar_type()));
  add_space_to_key(key, space);
  key.add("init", options.init).add("batch_tokens", options.batch_tokens);
  if (!is_paper(options)) {
    key.add("token_weights", options.token_weights).add("lambda", options.lambda);
  }
  return key.key();
}

InitLibraryResult init_library(RunContext& context, const LoadedModel& parent,
                               const SearchSpace& space, const TokenPart& calibration,
                               const TokenPart& validation, const InitLibraryOptions& options,
                               LibraryRole role) {
  const c10::NoGradGuard no_grad;
  return LibraryMaker(context, parent, space, calibration, validation, options).make(role);
}

}  // namespace puzzle
