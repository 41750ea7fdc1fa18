#include "puzzle/stages/distill_blocks.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/block_student.h"
#include "puzzle/stages/block_training.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/library.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other weights or rows.
constexpr int kDistillBlocksVersion = 1;
constexpr const char* kDistillBlocksStage = "distill-blocks";
constexpr const char* kInitMetadata = "puzzle.init";  // as init-library writes it

class BlockDistiller {
 public:
  BlockDistiller(RunContext& context, const LoadedModel& parent, const DistillBlocksInput& input,
                 const SearchSpace& space, const TokenPart& train, const TokenPart& validation,
                 const DistillBlocksOptions& options);
  DistillBlocksResult make();

 private:
  void check() const;
  void name_current_rows();
  [[nodiscard]] bool is_wanted(std::int64_t layer) const;
  [[nodiscard]] bool writes_file(std::int64_t layer) const;
  [[nodiscard]] std::string find_finished() const;
  void hold_states();
  void make_layer(std::int64_t layer, Progress& progress);
  void skip_layer(std::int64_t layer, Progress& progress);
  [[nodiscard]] LayerLibrary load_layer(std::int64_t layer) const;
  [[nodiscard]] std::string init_of_layer(std::int64_t layer) const;
  [[nodiscard]] std::vector<BlockStudent> make_students(std::int64_t layer,
                                                        const LayerLibrary& library) const;
  void record(std::int64_t layer, LayerLibrary library, const std::vector<BlockStudent>& students,
              const std::vector<StudentVerdict>& verdicts, const Stopwatch& watch);
  [[nodiscard]] VariantRow variant_row(std::int64_t layer, const BlockStudent& student,
                                       const StudentVerdict& verdict) const;
  void add_point(std::int64_t layer, const std::string& name, const std::string& metric,
                 std::int64_t step, double value);

  [[nodiscard]] const LayerWeights& parent_layer(std::int64_t layer) const {
    return parent_.weights.layers[static_cast<std::size_t>(layer)];
  }
  [[nodiscard]] std::int64_t windows_per_layer() const {
    return options_.epochs * train_.num_windows();
  }
  [[nodiscard]] std::int64_t num_steps() const {
    return options_.epochs * train_states_->num_batches();
  }
  [[nodiscard]] std::int64_t tokens_after(std::int64_t step) const {
    return std::min(step * options_.batch_windows * train_.window(),
                    windows_per_layer() * train_.window());
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const DistillBlocksInput& input_;
  const DistillBlocksOptions& options_;
  TokenPart train_;
  TokenPart validation_;
  BlockLoss loss_;
  std::string key_;
  std::filesystem::path folder_;
  std::vector<std::string> layer_keys_;
  std::vector<std::vector<PlannedStudent>> plan_;
  std::optional<HeldStates> train_states_;
  std::optional<HeldStates> validation_states_;
  std::vector<CurveRow> curves_;  // of the layer being made
};

BlockDistiller::BlockDistiller(RunContext& context, const LoadedModel& parent,
                               const DistillBlocksInput& input, const SearchSpace& space,
                               const TokenPart& train, const TokenPart& validation,
                               const DistillBlocksOptions& options)
    : context_(context),
      parent_(parent),
      input_(input),
      options_(options),
      train_(train.first_tokens(options.num_tokens)),
      validation_(validation.first_tokens(options.validation_tokens)),
      loss_(parse_block_loss(options.loss)),
      key_(distill_blocks_key(context, parent, input, space, train, validation, options)),
      folder_(library_folder(context.folder, key_)),
      plan_(plan_students(parent.weights.spec, space, options)) {
  check();
  for (std::int64_t layer = 0; layer < parent.weights.spec.num_layers(); ++layer) {
    KeyBuilder key;
    layer_keys_.push_back(key.add("library", key_).add("layer", layer).key());
  }
  context.communicator.agree("distill-blocks: the library's key", key_);
}

void BlockDistiller::check() const {
  const c10::ScalarType type = parent_.weights.embedding.scalar_type();
  if (type != at::kFloat) {
    fail(ErrorKind::kUsage, "distill-blocks: the parent's weights are {}, expected fp32 to train",
         c10::toString(type));
  }
  for (const TokenPart* part : {&train_, &validation_}) {
    if (part->num_windows() == 0) {
      fail(ErrorKind::kUsage, "distill-blocks: the part {} has no tokens; raise data.{}_tokens",
           part->name(), part->name());
    }
  }
  for (const std::int64_t layer : options_.layers) {
    if (layer < 0 || layer >= parent_.weights.spec.num_layers()) {
      fail(ErrorKind::kUsage, "distill_blocks.layers: {}, expected 0 … {}, the parent's layers",
           layer, parent_.weights.spec.num_layers() - 1);
    }
  }
}

bool BlockDistiller::is_wanted(std::int64_t layer) const {
  return options_.layers.empty() ||
         std::ranges::find(options_.layers, layer) != options_.layers.end();
}

bool BlockDistiller::writes_file(std::int64_t layer) const {
  return !plan_[static_cast<std::size_t>(layer)].empty() ||
         std::filesystem::exists(layer_file(input_.library_folder, layer));
}

// The two modes are two passes of one run, and readers see the rows of both. Stage records stay out
// of it: no other stage names its own, so naming ours would hide theirs.
void BlockDistiller::name_current_rows() {
  const auto scope = [](const std::string& mode) {
    return fmt::format("{}/{}", kDistillBlocksStage, mode);
  };
  for (const RunTable table : {RunTable::kVariants, RunTable::kCurves}) {
    context_.db.set_current(table, scope(options_.mode), layer_keys_);
    if (options_.mode == "decoupled") {  // a coupled pass comes after it and names its own anew
      context_.db.set_current(table, scope("coupled"), {});
    }
  }
}

// One flag per layer, from rank 0 to all.
std::string BlockDistiller::find_finished() const {
  std::string flags(layer_keys_.size(), '0');
  if (context_.communicator.is_first()) {
    for (std::size_t i = 0; i < flags.size(); ++i) {
      const auto layer = static_cast<std::int64_t>(i);
      const bool has_file =
          !writes_file(layer) || std::filesystem::exists(layer_file(folder_, layer));
      flags[i] = has_file && context_.db.has_stage(layer_keys_[i]) ? '1' : '0';
    }
  }
  return context_.communicator.broadcast_string(flags, 0);
}

DistillBlocksResult BlockDistiller::make() {
  if (context_.communicator.is_first()) {
    name_current_rows();
  }
  DistillBlocksResult result{.key = key_, .folder = folder_};
  const std::string finished = find_finished();
  std::int64_t end = 0;  // one past the last layer to be made
  for (std::int64_t layer = 0; layer < std::ssize(finished); ++layer) {
    if (is_wanted(layer)) {
      const bool is_found = finished[static_cast<std::size_t>(layer)] == '1';
      ++(is_found ? result.layers_found : result.layers_made);
      end = is_found ? end : layer + 1;
    }
  }
  if (end > 0 && context_.communicator.is_first()) {
    hold_states();
  }
  Progress progress(kDistillBlocksStage, end * windows_per_layer(), "windows");
  for (std::int64_t layer = 0; layer < end; ++layer) {
    const bool is_made = is_wanted(layer) && finished[static_cast<std::size_t>(layer)] == '0';
    if (context_.communicator.is_first()) {
      try {
        if (is_made) {
          make_layer(layer, progress);
        } else {
          skip_layer(layer, progress);
        }
      } catch (const c10::Error& error) {
        fail(ErrorKind::kInternal, "distill-blocks, layer {}: {}", layer,
             error.what_without_backtrace());
      }
    }
    context_.communicator.barrier();
  }
  return result;
}

void BlockDistiller::hold_states() {
  const std::int64_t batch_tokens = options_.batch_windows * train_.window();
  train_states_.emplace(parent_, train_, RankShare{}, batch_tokens);
  validation_states_.emplace(parent_, validation_, RankShare{}, batch_tokens);
}

void BlockDistiller::skip_layer(std::int64_t layer, Progress& progress) {
  train_states_->advance(parent_layer(layer));
  validation_states_->advance(parent_layer(layer));
  progress.skip(windows_per_layer());
  progress.advance(0);
}

LayerLibrary BlockDistiller::load_layer(std::int64_t layer) const {
  const std::filesystem::path file = layer_file(input_.library_folder, layer);
  return std::filesystem::exists(file)
             ? load_layer_library(file, parent_.weights.spec, parent_.weights.embedding.device(),
                                  at::kFloat)
             : LayerLibrary{};
}

// How the starting library was initialised, which its files say; "parent" where a layer has none,
// so that only parts of the parent can have been put together.
std::string BlockDistiller::init_of_layer(std::int64_t layer) const {
  const std::filesystem::path file = layer_file(input_.library_folder, layer);
  if (!std::filesystem::exists(file)) {
    return "parent";
  }
  const SafetensorsFile stored(file);
  const auto found = stored.metadata().find(kInitMetadata);
  return found == stored.metadata().end() ? "unknown" : found->second;
}

std::vector<BlockStudent> BlockDistiller::make_students(std::int64_t layer,
                                                        const LayerLibrary& library) const {
  const StudentRates rates{options_.kv_learning_rate, options_.ffn_learning_rate,
                           options_.linear_learning_rate};
  const LayerWeights& own = parent_layer(layer);
  std::vector<BlockStudent> students;
  for (const PlannedStudent& planned : plan_[static_cast<std::size_t>(layer)]) {
    LayerWeights start;
    switch (planned.role) {
      case StudentRole::kAttention:
        start = {make_attention_variant(parent_.weights, library, layer, planned.block.attention),
                 own.ffn};
        break;
      case StudentRole::kFfn:
        start = {own.attention,
                 make_ffn_variant(parent_.weights, library, layer, planned.block.ffn)};
        break;
      case StudentRole::kBlock:
        start = make_block(parent_.weights, library, layer, planned.block);
        break;
    }
    students.emplace_back(planned.name(), planned.role, std::move(start), own, parent_.geometry,
                          rates, options_.adamw);
  }
  return students;
}

void BlockDistiller::make_layer(std::int64_t layer, Progress& progress) {
  const Stopwatch watch;
  curves_.clear();
  LayerLibrary library = load_layer(layer);
  std::vector<BlockStudent> students = make_students(layer, library);
  if (students.empty()) {
    skip_layer(layer, progress);
    record(layer, std::move(library), {}, {}, watch);
    return;
  }
  const LayerTask task{parent_layer(layer), parent_.geometry, loss_,
                       fmt::format("{}, layer {}", kDistillBlocksStage, layer)};
  const TrainingPlan plan{
      .epochs = options_.epochs,
      .seed = derive_seed(static_cast<std::uint64_t>(context_.seed),
                          fmt::format("{}/layer {}", kDistillBlocksStage, layer)),
      .curve_every = options_.curve_every,
      .schedule = options_.schedule};
  const auto advance = [&](std::int64_t windows) {
    progress.advance(windows, fmt::format("layer {}", layer));
  };
  for (const TrainingPoint& point : train_students(students, task, plan, *train_states_, advance)) {
    for (std::size_t i = 0; i < students.size(); ++i) {
      add_point(layer, students[i].name(), "loss", point.step, point.losses[i]);
    }
  }
  const std::vector<StudentVerdict> verdicts = judge_students(students, task, *validation_states_);
  record(layer, std::move(library), students, verdicts, watch);
}

VariantRow BlockDistiller::variant_row(std::int64_t layer, const BlockStudent& student,
                                       const StudentVerdict& verdict) const {
  VariantRow row{.key = layer_keys_[static_cast<std::size_t>(layer)],
                 .layer = layer,
                 .variant = student.name(),
                 .stage = kDistillBlocksStage};
  row.init = init_of_layer(layer);
  row.error_before = verdict.error_before;
  row.error_after = verdict.error_after;
  row.loss_before = verdict.loss_before;
  row.loss_after = verdict.loss_after;
  row.tokens = windows_per_layer() * train_.window();
  row.kept = verdict.keeps_training() ? "after" : "before";
  return row;
}

void BlockDistiller::record(std::int64_t layer, LayerLibrary library,
                            const std::vector<BlockStudent>& students,
                            const std::vector<StudentVerdict>& verdicts, const Stopwatch& watch) {
  std::vector<VariantRow> rows;
  for (std::size_t i = 0; i < students.size(); ++i) {
    const BlockStudent& student = students[i];
    const StudentVerdict& verdict = verdicts[i];
    const LayerWeights kept = verdict.keeps_training() ? student.trained() : student.start();
    switch (student.role()) {
      case StudentRole::kAttention:
        library.attention[kept.attention.spec] = kept.attention;
        break;
      case StudentRole::kFfn:
        library.ffn[kept.ffn.spec] = kept.ffn;
        break;
      case StudentRole::kBlock:
        library.coupled[kept.spec()] = kept;
        break;
    }
    rows.push_back(variant_row(layer, student, verdict));
    for (const auto& [step, loss, error] :
         {std::tuple{std::int64_t{0}, verdict.loss_before, verdict.error_before},
          std::tuple{num_steps(), verdict.loss_after, verdict.error_after}}) {
      add_point(layer, student.name(), "heldout_loss", step, loss);
      add_point(layer, student.name(), "heldout_error", step, error);
    }
  }
  if (writes_file(layer)) {
    save_layer_library(layer_file(folder_, layer), library,
                       {{"puzzle.stage", kDistillBlocksStage},
                        {"puzzle.key", key_},
                        {"puzzle.start", input_.library_key},
                        {kInitMetadata, init_of_layer(layer)}});
  }
  const double seconds = watch.seconds();
  const auto tokens = static_cast<double>(windows_per_layer() * train_.window());
  const Json detail = {{"train_tokens", tokens},
                       {"validation_tokens", validation_.num_tokens()},
                       {"steps", students.empty() ? 0 : num_steps()},
                       {"tokens_per_s", students.empty() ? 0.0 : tokens / seconds}};
  RunTransaction transaction(context_.db);
  context_.db.put(rows);
  context_.db.put(curves_);
  context_.db.put(StageRecord{.key = layer_keys_[static_cast<std::size_t>(layer)],
                              .stage = kDistillBlocksStage,
                              .what = fmt::format("layer {}", layer),
                              .seconds = seconds,
                              .detail_json = detail.dump()});
  transaction.commit();
  log_debug("distill-blocks, layer {}: {} variants in {:.1f} s", layer, rows.size(), seconds);
}

// A training that has diverged leaves a gap: run.db takes no NaN.
void BlockDistiller::add_point(std::int64_t layer, const std::string& name,
                               const std::string& metric, std::int64_t step, double value) {
  if (!std::isnan(value)) {
    curves_.push_back({.key = layer_keys_[static_cast<std::size_t>(layer)],
                       .stage = kDistillBlocksStage,
                       .series = fmt::format("layer {}/{}", layer, name),
                       .metric = metric,
                       .step = step,
                       .tokens = tokens_after(step),
                       .value = value});
  }
}

}  // namespace

void DistillBlocksOptions::visit(OptionList& list) {
  const Range<std::int64_t> tokens{1, std::int64_t{1} << 40};
  const Range<double> rate{0.0, 1.0};
  const Range<double> decay{0.0, 1.0};
  list.add("num_tokens", num_tokens, tokens,
           "Training tokens per layer, of the train part; their hidden states are held in memory.");
  list.add("loss", loss, Choices{{"mse", "token-mse", "cosine"}},
           "Distance between block outputs: the paper's normalised squared error, the same "
           "normalised per token, or 1 - cosine.");
  list.add("mode", mode, Choices{{"decoupled", "coupled"}},
           "decoupled trains each half beside the parent's other half; coupled trains the blocks "
           "named by pairs as a whole.");
  list.add("pairs", pairs,
           "Blocks to train coupled: kv1/w768 in all layers that allow it, 7:kv1/w768 in one.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per optimiser step.");
  list.add("epochs", epochs, Range<std::int64_t>{1, 1 << 20},
           "Times that each layer goes through the training tokens.");
  list.add("kv_learning_rate", kv_learning_rate, rate,
           "Peak learning rate of attention with fewer KV heads.");
  list.add("ffn_learning_rate", ffn_learning_rate, rate, "Peak learning rate of narrower FFNs.");
  list.add("linear_learning_rate", linear_learning_rate, rate,
           "Peak learning rate of linear replacements.");
  list.add("validation_tokens", validation_tokens, tokens,
           "Held-out tokens that decide whether a variant's training is kept.");
  list.add("curve_every", curve_every, Range<std::int64_t>{1, 1 << 30},
           "Steps between two points of a training curve.");
  list.add("layers", layers, Range<std::int64_t>{0, kMaxLayers - 1},
           "Only these layers (0-based); empty: all.");
  list.add("beta1", adamw.beta1, decay, "Decay of AdamW's first moment.");
  list.add("beta2", adamw.beta2, decay, "Decay of AdamW's second moment.");
  list.add("eps", adamw.eps, decay, "Added to the root of AdamW's second moment.");
  list.add("weight_decay", adamw.weight_decay, Range<double>{0.0, 10.0},
           "Decoupled weight decay of matrices; biases have none.");
  list.add("clip_norm", adamw.clip_norm, Range<double>{0.0, 1e9},
           "Largest norm of one half's gradients together; 0 turns clipping off.");
  schedule.visit(list);
}

std::string distill_blocks_key(const RunContext& context, const LoadedModel& parent,
                               const DistillBlocksInput& input, const SearchSpace& space,
                               const TokenPart& train, const TokenPart& validation,
                               const DistillBlocksOptions& options) {
  DistillBlocksOptions relevant = options;
  relevant.layers = {};
  relevant.num_tokens = 0;  // the parts' keys say which tokens these come to
  relevant.validation_tokens = 0;
  KeyBuilder key;
  key.add("stage", kDistillBlocksStage).add("version", kDistillBlocksVersion);
  key.add("seed", context.seed).add("parent", parent.key).add("library", input.library_key);
  key.add("train", train.first_tokens(options.num_tokens).content_key());
  key.add("validation", validation.first_tokens(options.validation_tokens).content_key());
  for (const LayerSpace& layer : space.layers) {
    key.add("layer", "");
    for (const AttentionSpec& variant : layer.attention) {
      key.add("attention", variant.name());
    }
    for (const FfnSpec& variant : layer.ffn) {
      key.add("ffn", variant.name());
    }
  }
  add_options_to_key(key, relevant);
  return key.key();
}

DistillBlocksResult distill_blocks(RunContext& context, const LoadedModel& parent,
                                   const DistillBlocksInput& input, const SearchSpace& space,
                                   const TokenPart& train, const TokenPart& validation,
                                   const DistillBlocksOptions& options) {
  const c10::NoGradGuard no_grad;
  return BlockDistiller(context, parent, input, space, train, validation, options).make();
}

}  // namespace puzzle
