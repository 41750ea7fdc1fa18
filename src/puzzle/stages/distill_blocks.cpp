#include "puzzle/stages/distill_blocks.h"

#include <algorithm>
#include <memory>
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
#include "puzzle/base/strings.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/block_ranks.h"
#include "puzzle/stages/block_rows.h"
#include "puzzle/stages/block_student.h"
#include "puzzle/stages/block_training.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/layer_walk.h"
#include "puzzle/stages/library.h"
#include "puzzle/stages/nested_student.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

constexpr const char* kDistillBlocksStage = "distill-blocks";
constexpr const char* kInitMetadata = "puzzle.init";  // as init-library writes it

// Of each layer of a library that distill-blocks makes.
std::vector<std::string> layer_keys_of(const std::string& library_key, std::int64_t num_layers) {
  std::vector<std::string> keys;
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    KeyBuilder key;
    keys.push_back(key.add("library", library_key).add("layer", layer).key());
  }
  return keys;
}

// What all widths of a layer start from.
NestedFfn nested_start(std::int64_t layer, const LayerLibrary& library,
                       const PlannedStudent& planned, const c10::Device& device) {
  const std::int64_t largest = planned.widths.back();
  if (library.trained || !library.nested || library.nested->width() < largest) {
    fail(ErrorKind::kUsage,
         "distill-blocks, layer {}: widths up to {} are trained together, but the library does not "
         "hold all of them from one start; make it with init-library, or set distill_blocks.widths "
         "to separate",
         layer, largest);
  }
  return on_device(*library.nested, device);
}

void take_trained(const LayerStudent& student, TrainedVariant& variant) {
  if (const auto* nested = dynamic_cast<const NestedStudent*>(&student)) {
    variant.nested = nested->trained();
  } else {
    variant.kept = dynamic_cast<const BlockStudent&>(student).trained();
  }
}

// The better of before and after; widths for which that is before stay as the library has them.
void put_variant(const TrainedVariant& variant, LayerLibrary& library) {
  switch (variant.planned.role) {
    case StudentRole::kAttention:
      library.attention[variant.kept.attention.spec] = variant.kept.attention;
      break;
    case StudentRole::kFfn:
      library.ffn[variant.kept.ffn.spec] = variant.kept.ffn;
      break;
    case StudentRole::kBlock:
      library.coupled[variant.kept.spec()] = variant.kept;
      break;
    case StudentRole::kNestedFfn:
      if (variant.keeps_training()) {
        library.trained = {*variant.nested, {}};
        for (std::size_t i = 0; i < variant.planned.widths.size(); ++i) {
          if (variant.verdicts[i].keeps_training()) {
            library.trained->widths.push_back(variant.planned.widths[i]);
          }
        }
      }
      break;
  }
}

class BlockDistiller {
 public:
  BlockDistiller(RunContext& context, const LoadedModel& parent, const DistillBlocksInput& input,
                 const SearchSpace& space, const TokenPart& train, const TokenPart& validation,
                 const DistillBlocksOptions& options);
  DistillBlocksResult make();

 private:
  void check() const;
  void name_current_rows();
  [[nodiscard]] bool writes_file(std::int64_t layer) const;
  void hold_states();
  void make_layer(std::int64_t layer, Progress& progress);
  void skip_layer(std::int64_t layer, Progress& progress);
  [[nodiscard]] std::string init_of_layer(std::int64_t layer) const;
  [[nodiscard]] std::vector<TrainedVariant> untrained(std::int64_t layer,
                                                      const LayerLibrary& library) const;
  void train(std::int64_t layer, std::vector<TrainedVariant>& variants, Progress& progress);
  void record(std::int64_t layer, LayerLibrary library, const std::vector<TrainedVariant>& variants,
              const Stopwatch& watch);
  [[nodiscard]] std::unique_ptr<LayerStudent> make_student(std::int64_t layer,
                                                           const TrainedVariant& variant) const;

  [[nodiscard]] const LayerWeights& parent_layer(std::int64_t layer) const {
    return parent_.weights.layers[static_cast<std::size_t>(layer)];
  }
  [[nodiscard]] std::int64_t windows_per_layer() const {
    return options_.epochs * train_.num_windows();
  }
  [[nodiscard]] std::int64_t num_steps() const {
    return options_.epochs * train_states_->num_batches();
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
      layer_keys_(layer_keys_of(key_, parent.weights.spec.num_layers())),
      plan_(plan_students(parent.weights.spec, space, options)) {
  check();
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
}

bool BlockDistiller::writes_file(std::int64_t layer) const {
  return !plan_[static_cast<std::size_t>(layer)].empty() ||
         std::filesystem::exists(layer_file(input_.library_folder, layer));
}

// The two modes are two passes of one run, and readers see the rows of both, but only those that
// led to this library. Stage records stay out of it: no other stage names its own, so naming ours
// would hide theirs.
void BlockDistiller::name_current_rows() {
  const auto scope = [](const std::string& mode) {
    return fmt::format("{}/{}", kDistillBlocksStage, mode);
  };
  for (const RunTable table : {RunTable::kVariants, RunTable::kCurves}) {
    context_.db.set_current(table, scope(options_.mode), layer_keys_);
    if (options_.mode == "decoupled") {  // a coupled pass comes after it and names its own anew
      context_.db.set_current(table, scope("coupled"), {});
    } else {  // empty unless the start is a decoupled pass's result
      context_.db.set_current(table, scope("decoupled"),
                              layer_keys_of(input_.library_key, parent_.weights.spec.num_layers()));
    }
  }
}

DistillBlocksResult BlockDistiller::make() {
  if (context_.communicator.is_first()) {
    name_current_rows();
  }
  const LayerWalk walk =
      plan_layer_walk(context_, layer_keys_, options_.layers, [&](std::int64_t layer) {
        return !writes_file(layer) || std::filesystem::exists(layer_file(folder_, layer));
      });
  const DistillBlocksResult result{
      .key = key_, .folder = folder_, .layers_made = walk.num_made, .layers_found = walk.num_found};
  if (walk.num_layers() == 0) {
    return result;
  }
  with_place(kDistillBlocksStage, [&] { hold_states(); });
  Progress progress(kDistillBlocksStage, walk.num_layers() * windows_per_layer(), "windows");
  walk_layers(
      walk, kDistillBlocksStage, [&](std::int64_t layer) { make_layer(layer, progress); },
      [&](std::int64_t layer) { skip_layer(layer, progress); });
  return result;
}

// The held-out states first: they are read at every point of a curve.
void BlockDistiller::hold_states() {
  const std::int64_t batch_tokens = options_.batch_windows * train_.window();
  StateMemory memory{options_.state_memory_mib << 20, context_.folder};
  validation_states_.emplace(parent_, validation_, RankShare{}, batch_tokens, memory);
  memory.bytes -= validation_states_->memory_bytes();
  train_states_.emplace(parent_, train_, RankShare{}, batch_tokens, memory);
}

void BlockDistiller::skip_layer(std::int64_t layer, Progress& progress) {
  train_states_->advance(parent_layer(layer));
  validation_states_->advance(parent_layer(layer));
  progress.skip(windows_per_layer());
  progress.advance(0);
  context_.communicator.barrier();
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

// The variants of a layer's plan with the weights that they start from.
std::vector<TrainedVariant> BlockDistiller::untrained(std::int64_t layer,
                                                      const LayerLibrary& library) const {
  const ModelWeights& parent = parent_.weights;
  const LayerWeights& own = parent_layer(layer);
  std::vector<TrainedVariant> variants;
  for (const PlannedStudent& planned : plan_[static_cast<std::size_t>(layer)]) {
    TrainedVariant variant;
    variant.planned = planned;
    LayerWeights& start = variant.kept;
    switch (planned.role) {
      case StudentRole::kAttention:
        start = {make_attention_variant(parent, library, layer, planned.block.attention), own.ffn};
        break;
      case StudentRole::kFfn:
        start = {own.attention, make_ffn_variant(parent, library, layer, planned.block.ffn)};
        break;
      case StudentRole::kBlock:
        start = make_block(parent, library, layer, planned.block);
        break;
      case StudentRole::kNestedFfn:
        variant.nested = nested_start(layer, library, planned, parent.embedding.device());
        break;
    }
    variants.push_back(std::move(variant));
  }
  return variants;
}

void BlockDistiller::make_layer(std::int64_t layer, Progress& progress) {
  const Stopwatch watch;
  LayerLibrary library = find_layer_library(input_.library_folder, layer, parent_.weights);
  std::vector<TrainedVariant> variants = untrained(layer, library);
  if (variants.empty()) {
    skip_layer(layer, progress);
  } else {
    train(layer, variants, progress);
  }
  if (context_.communicator.is_first()) {
    record(layer, std::move(library), variants, watch);
  }
  context_.communicator.barrier();
}

std::unique_ptr<LayerStudent> BlockDistiller::make_student(std::int64_t layer,
                                                           const TrainedVariant& variant) const {
  const LayerWeights& own = parent_layer(layer);
  if (variant.planned.role == StudentRole::kNestedFfn) {
    const WidthSampling sampling{
        options_.widths_per_step,
        derive_seed(static_cast<std::uint64_t>(context_.seed),
                    fmt::format("{}/layer {}/widths", kDistillBlocksStage, layer))};
    return std::make_unique<NestedStudent>(*variant.nested, variant.planned.widths, sampling, own,
                                           parent_.geometry, options_.nested_learning_rate,
                                           options_.adamw);
  }
  const StudentRates rates{options_.kv_learning_rate, options_.ffn_learning_rate,
                           options_.linear_learning_rate};
  return std::make_unique<BlockStudent>(variant.planned.name(), variant.planned.role, variant.kept,
                                        own, parent_.geometry, rates, options_.adamw);
}

void BlockDistiller::train(std::int64_t layer, std::vector<TrainedVariant>& variants,
                           Progress& progress) {
  Communicator& communicator = context_.communicator;
  std::vector<std::size_t> mine;
  std::vector<std::unique_ptr<LayerStudent>> students;
  for (std::size_t i = 0; i < variants.size(); ++i) {
    if (owner_of(i, communicator) == communicator.rank()) {
      mine.push_back(i);
      students.push_back(make_student(layer, variants[i]));
    }
  }
  const LayerTask task{parent_layer(layer), parent_.geometry, loss_,
                       fmt::format("{}, layer {}", kDistillBlocksStage, layer)};
  const TrainingPlan plan{
      .epochs = options_.epochs,
      .seed = derive_seed(static_cast<std::uint64_t>(context_.seed),
                          fmt::format("{}/layer {}", kDistillBlocksStage, layer)),
      .curve_every = options_.curve_every,
      .curve_batches = options_.curve_batches,
      .schedule = options_.schedule};
  // Ranks keep step, so that none waits for another longer than a batch takes: a layer may take
  // longer than communicator.timeout_s.
  const auto advance = [&](std::int64_t windows) {
    progress.advance(windows, fmt::format("layer {}", layer));
    communicator.barrier();
  };
  auto curves = train_students(students, task, plan, *train_states_, *validation_states_, advance);
  auto verdicts = judge_students(students, task, *validation_states_);
  for (std::size_t k = 0; k < mine.size(); ++k) {
    TrainedVariant& variant = variants[mine[k]];
    variant.verdicts = std::move(verdicts[k]);
    variant.curve = std::move(curves[k]);
    if (variant.keeps_training()) {
      take_trained(*students[k], variant);
    }
  }
  for (std::size_t i = 0; i < variants.size(); ++i) {
    share_variant(communicator, owner_of(i, communicator), variants[i]);
  }
}

void BlockDistiller::record(std::int64_t layer, LayerLibrary library,
                            const std::vector<TrainedVariant>& variants, const Stopwatch& watch) {
  const std::string& key = layer_keys_[static_cast<std::size_t>(layer)];
  const TrainingFacts facts{.key = key,
                            .stage = kDistillBlocksStage,
                            .layer = layer,
                            .init = init_of_layer(layer),
                            .tokens = windows_per_layer() * train_.window(),
                            .step_tokens = options_.batch_windows * train_.window()};
  std::vector<VariantRow> rows;
  std::vector<CurveRow> curves;
  for (const TrainedVariant& variant : variants) {
    put_variant(variant, library);
    add_variant_rows(facts, variant, rows);
    add_curve_rows(facts, variant, curves);
  }
  if (writes_file(layer)) {
    save_layer_library(layer_file(folder_, layer), library,
                       {{"puzzle.stage", kDistillBlocksStage},
                        {"puzzle.key", key_},
                        {"puzzle.start", input_.library_key},
                        {kInitMetadata, facts.init}});
  }
  const double seconds = watch.seconds();
  const auto tokens = static_cast<double>(facts.tokens);
  const Json detail = {{"train_tokens", tokens},
                       {"validation_tokens", validation_.num_tokens()},
                       {"steps", variants.empty() ? 0 : num_steps()},
                       {"tokens_per_s", variants.empty() ? 0.0 : tokens / seconds}};
  RunTransaction transaction(context_.db);
  context_.db.put(rows);
  context_.db.put(curves);
  context_.db.put(StageRecord{.key = key,
                              .stage = kDistillBlocksStage,
                              .what = fmt::format("layer {}", layer),
                              .seconds = seconds,
                              .detail_json = detail.dump()});
  transaction.commit();
  log_debug("distill-blocks, layer {}: {} variants in {:.1f} s", layer, rows.size(), seconds);
}

}  // namespace

DistillBlocksResult distill_blocks(RunContext& context, const LoadedModel& parent,
                                   const DistillBlocksInput& input, const SearchSpace& space,
                                   const TokenPart& train, const TokenPart& validation,
                                   const DistillBlocksOptions& options) {
  const c10::NoGradGuard no_grad;
  check_distill_blocks(options, parent.weights.spec, space);
  // Their windows are in the key, which the option itself need not be.
  const TokenPart own = options.sources.empty() ? train : train.of_sources(options.sources);
  if (own.num_tokens() < std::min(options.num_tokens, train.num_tokens())) {
    log_warning("distill-blocks: of {} there are only {} of the {} tokens asked for",
                join(options.sources, ", "), own.num_tokens(), options.num_tokens);
  }
  return BlockDistiller(context, parent, input, space, own, validation, options).make();
}

}  // namespace puzzle
