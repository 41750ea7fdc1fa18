#include "puzzle/stages/distill_child.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/child_trainer.h"
#include "puzzle/stages/heldout_kl.h"

namespace puzzle {
namespace {

constexpr std::int64_t kDistillChildVersion = 3;

std::string distill_child_key(const RunContext& context, const LoadedModel& parent,
                              const DistillChildInput& input, const TokenPart& train,
                              const TokenPart& validation, const DistillChildOptions& options) {
  // What only bounds memory or says when states are saved changes rounding at most: a run that ran
  // out of memory goes on with other values.
  const DistillChildOptions usual;
  DistillChildOptions relevant = options;
  relevant.save_every_s = usual.save_every_s;
  relevant.micro_windows = usual.micro_windows;
  relevant.checkpoint_layers = usual.checkpoint_layers;
  relevant.compute = usual.compute;  // what it comes to on this device follows
  KeyBuilder key;
  key.add("stage", "distill-child").add("version", kDistillChildVersion).add("seed", context.seed);
  key.add("type", c10::toString(context.type));
  key.add("compute", c10::toString(compute_type(options, context.type, context.device)));
  key.add("parent", parent.key).add("child", input.child_key).add("name", input.name);
  key.add("train", train.content_key()).add("validation", validation.content_key());
  add_options_to_key(key, relevant);
  return key.key();
}

void check_validation(const TokenPart& validation) {
  if (validation.num_windows() == 0) {
    fail(ErrorKind::kUsage,
         "distill_child: the validation part has no windows, so the best weights cannot be chosen; "
         "set data.validation_tokens");
  }
}

// Of one key, so that a changed option starts anew and a changed mind finds the old state again.
std::filesystem::path training_folder(const std::filesystem::path& child_folder,
                                      const std::string& key) {
  return fmt::format("{}.training-{}", child_folder.string(), key.substr(0, 8));
}

struct Progressed {
  std::int64_t step = 0;
  std::int64_t best_step = 0;
  double best_kl = 0.0;
  double kl_before = 0.0;
};

class DistillLoop {
 public:
  DistillLoop(RunContext& context, const LoadedModel& parent, const ModelWeights& child,
              const DistillChildInput& input, const TokenPart& train, const TokenPart& validation,
              const DistillChildOptions& options, std::string key)
      : context_(context),
        options_(options),
        key_(std::move(key)),
        name_(input.name),
        window_(train.window()),
        trainer_(parent, child, options),
        meter_(parent, validation.first_tokens(options.validation_tokens), context.communicator),
        batches_(train,
                 {.batch_windows = options.batch_windows,
                  .order = BatchOrder::kShuffled,
                  // The same for every child, so that children compare on equal data.
                  .seed = derive_seed(static_cast<std::uint64_t>(context.seed), "distill-child")}),
        folder_(training_folder(context.folder / "children" / input.name, key_)),
        num_steps_(std::max<std::int64_t>(
            1, options.num_tokens / (options.batch_windows * train.window()))) {}

  Progressed run() {
    start();
    Progress progress("distill-child", num_steps_, "steps");
    progress.skip(state_.step);
    Stopwatch since_save;
    while (state_.step < num_steps_) {
      train_step();
      if (state_.step % options_.validate_every == 0 || state_.step == num_steps_) {
        validate();
      }
      // Only where no training losses are pending, which are of this rank alone.
      if (options_.save_every_s > 0.0 && state_.step < num_steps_ &&
          state_.step % options_.validate_every == 0 && save_is_due(since_save)) {
        save();
        since_save = Stopwatch();
      }
      advance(progress);
    }
    return state_;
  }

  // The weights to keep: the best seen, or what training started from.
  const ModelWeights& best() {
    if (state_.best_step == 0) {
      trainer_.load_weights(folder_ / "start.safetensors");
    } else if (state_.best_step != num_steps_) {
      trainer_.load_weights(best_file(state_.best_step));
    }
    return trainer_.child();
  }

  void clean() const {
    context_.communicator.barrier();
    if (context_.communicator.is_first()) {
      std::error_code ignored;
      std::filesystem::remove_all(folder_, ignored);
    }
  }

 private:
  [[nodiscard]] std::filesystem::path best_file(std::int64_t step) const {
    return folder_ / fmt::format("best-{}.safetensors", step);
  }
  [[nodiscard]] std::filesystem::path state_file() const { return folder_ / "state.safetensors"; }

  // Every rank saves and stops at the same steps, or collectives would part.
  [[nodiscard]] bool save_is_due(const Stopwatch& watch) const {
    const double mine = watch.seconds() >= options_.save_every_s ? 1.0 : 0.0;
    return context_.communicator.all_reduce_max(mine) > 0.0;
  }

  void start() {
    if (std::filesystem::exists(state_file())) {
      const auto metadata = trainer_.load_state(state_file(), &state_.step);
      if (metadata.at("key") != key_) {
        fail(ErrorKind::kFormat, "{}: holds the training state of another run; remove the folder",
             folder_.string());
      }
      state_.best_step = std::stoll(metadata.at("best_step"));
      state_.best_kl = std::stod(metadata.at("best_kl"));
      state_.kl_before = std::stod(metadata.at("kl_before"));
      load_window(metadata);
      log_info("distill-child: {} goes on at step {} of {}", name_, state_.step, num_steps_);
      return;
    }
    state_.kl_before = meter_.kl(trainer_.child());
    state_.best_kl = state_.kl_before;
    if (context_.communicator.is_first()) {
      make_folder(folder_);
      trainer_.save_weights(folder_ / "start.safetensors");
      put_curve("heldout_kl", 0, state_.kl_before);
    }
    log_info("distill-child: {}: held-out KL {:.4f} before training", name_, state_.kl_before);
  }

  void train_step() {
    const TokenBatch batch = batches_.batch(state_.step, rank_share(context_.communicator));
    StepLosses sums;
    for (std::int64_t first = 0; first < batch.num_windows(); first += options_.micro_windows) {
      const std::int64_t count = std::min(options_.micro_windows, batch.num_windows() - first);
      const TokenBatch micro{batch.tokens_BT.narrow(0, first, count),
                             batch.labels_BT.narrow(0, first, count),
                             batch.document_ids_BT.narrow(0, first, count), batch.cross_documents};
      const StepLosses losses = trainer_.add_gradients(
          micro, static_cast<double>(count) / static_cast<double>(options_.batch_windows));
      sums.total = sums.total.defined() ? sums.total + losses.total : losses.total;
      sums.kl = sums.kl.defined() ? sums.kl + losses.kl : losses.kl;
    }
    trainer_.update(
        context_.communicator,
        options_.adamw.learning_rate * schedule_factor(options_.schedule, state_.step, num_steps_));
    ++state_.step;
    if (sums.total.defined()) {
      window_loss_ = window_loss_.defined() ? window_loss_ + sums.total : sums.total;
      window_kl_ = window_kl_.defined() ? window_kl_ + sums.kl : sums.kl;
    }
    ++steps_in_window_;
  }

  // Training losses since the last validation are read here, once.
  void validate() {
    const auto read = [&](const at::Tensor& sum) {
      const double mine = sum.defined() ? sum.item<double>() : 0.0;
      return context_.communicator.all_reduce_sum(mine) / static_cast<double>(steps_in_window_);
    };
    const double loss = read(window_loss_);
    const double kl = read(window_kl_);
    window_loss_ = at::Tensor();
    window_kl_ = at::Tensor();
    steps_in_window_ = 0;
    const double heldout = meter_.kl(trainer_.child());
    if (!std::isfinite(loss) || !std::isfinite(heldout)) {
      fail(ErrorKind::kNumeric,
           "distill-child: {}: before step {} the loss is {}, the held-out KL {}; lower "
           "distill_child.learning_rate",
           name_, state_.step, loss, heldout);
    }
    if (context_.communicator.is_first()) {
      put_curve("loss", state_.step, loss);
      if (options_.kl_weight > 0.0) {
        put_curve("kl", state_.step, kl);
      }
      put_curve("heldout_kl", state_.step, heldout);
    }
    if (heldout < state_.best_kl) {
      keep_best(heldout);
    }
    last_note_ =
        fmt::format("loss {:.4f}, held-out KL {:.4f}, best {:.4f}", loss, heldout, state_.best_kl);
  }

  void keep_best(double heldout) {
    const std::int64_t previous = state_.best_step;
    state_.best_kl = heldout;
    state_.best_step = state_.step;
    if (context_.communicator.is_first()) {
      trainer_.save_weights(best_file(state_.step));
      // An older state may still point to the previous best; it goes when the next state is saved.
      outdated_.push_back(previous);
    }
  }

  void save() {
    if (!context_.communicator.is_first()) {
      return;
    }
    trainer_.save_state(state_file(), {{"key", key_},
                                       {"best_step", fmt::format("{}", state_.best_step)},
                                       {"best_kl", fmt::format("{}", state_.best_kl)},
                                       {"kl_before", fmt::format("{}", state_.kl_before)},
                                       {"window_steps", fmt::format("{}", steps_in_window_)},
                                       {"window_loss", window_sum(window_loss_)},
                                       {"window_kl", window_sum(window_kl_)}});
    for (const std::int64_t step : outdated_) {
      std::error_code ignored;
      std::filesystem::remove(best_file(step), ignored);
    }
    outdated_.clear();
  }

  // Training losses since the last validation, as text that gives back the same fp32 number.
  static std::string window_sum(const at::Tensor& sum) {
    return fmt::format("{}", sum.defined() ? sum.item<float>() : 0.0F);
  }

  void load_window(const std::map<std::string, std::string>& metadata) {
    steps_in_window_ = std::stoll(metadata.at("window_steps"));
    if (steps_in_window_ > 0) {
      const auto options = at::TensorOptions(context_.device).dtype(at::kFloat);
      window_loss_ = at::scalar_tensor(std::stof(metadata.at("window_loss")), options);
      window_kl_ = at::scalar_tensor(std::stof(metadata.at("window_kl")), options);
    }
  }

  void advance(Progress& progress) {
    try {
      progress.advance(1, last_note_);
    } catch (const Error& error) {
      // A signal reaches the ranks of a group at different steps; rank 0's state is whole only
      // where no rank holds training losses of its own.
      const bool whole = context_.communicator.size() == 1 || steps_in_window_ == 0;
      if (error.kind() == ErrorKind::kInterrupted && whole && state_.step < num_steps_) {
        save();
      }
      throw;
    }
  }

  void put_curve(const std::string& metric, std::int64_t step, double value) {
    context_.db.put_one(CurveRow{.key = key_,
                                 .stage = "distill-child",
                                 .series = name_,
                                 .metric = metric,
                                 .step = step,
                                 .tokens = step * options_.batch_windows * window_,
                                 .value = value});
  }

  RunContext& context_;
  const DistillChildOptions& options_;
  std::string key_;
  std::string name_;
  std::int64_t window_;
  ChildTrainer trainer_;
  HeldoutMeter meter_;
  TokenBatches batches_;
  std::filesystem::path folder_;
  std::int64_t num_steps_;
  Progressed state_;
  at::Tensor window_loss_;
  at::Tensor window_kl_;
  std::int64_t steps_in_window_ = 0;
  std::vector<std::int64_t> outdated_;
  std::string last_note_;
};

// What an earlier run recorded; rank 0's database decides for all.
std::optional<DistillChildResult> finished_result(RunContext& context, const std::string& key,
                                                  const std::filesystem::path& folder) {
  const Json detail = finished_child(context, folder, key);
  if (detail.is_null()) {
    return std::nullopt;
  }
  if (context.communicator.is_first()) {
    // Left over if the run was killed between its record and its end.
    std::error_code ignored;
    std::filesystem::remove_all(training_folder(folder, key), ignored);
  }
  const std::string place = context.db.path().string();
  return DistillChildResult{folder, key, json_double(detail, "kl_before", place),
                            json_double(detail, "kl_after", place),
                            json_int(detail, "best_step", place)};
}

}  // namespace

void DistillChildOptions::visit(OptionList& list) {
  const Range<double> weight{0.0, 1e6};
  list.add("num_tokens", num_tokens, Range<std::int64_t>{1, std::int64_t{1} << 50},
           "Training tokens; rounded down to whole steps, at least one. Less than a hundred steps "
           "want a smaller learning_rate, such as 1e-4.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per optimiser step, all processes together.");
  list.add("micro_windows", micro_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward and backward pass; bounds memory.");
  list.add("cosine_weight", cosine_weight, weight,
           "Weight of 1 - cosine between the hidden states of parent and child after each layer.");
  list.add("kl_weight", kl_weight, weight,
           "Weight of KL(parent ‖ child) of the next-token distributions.");
  list.add("lm_weight", lm_weight, weight, "Weight of the cross-entropy with the text itself.");
  list.add("cosine_over", cosine_over, Choices{{"sum", "mean"}},
           "Whether the cosine term is summed over layers, as in the paper, or averaged.");
  list.add("train", train, Choices{{"layers", "all"}},
           "layers trains every layer and the final norm; all trains embedding and head as well.");
  list.add("compute", compute, Choices{{"auto", "float32", "bfloat16"}},
           "Type of matrix products and attention in training; auto: bfloat16 where the device is "
           "faster in it. Weights, residual stream, norms, losses and optimiser are in the run's "
           "type.");
  list.add("checkpoint_layers", checkpoint_layers,
           "Keep only layer inputs and recompute the rest in the backward pass: less memory, more "
           "time.");
  list.add("validation_tokens", validation_tokens, Range<std::int64_t>{1, std::int64_t{1} << 40},
           "Held-out tokens on which the best weights are chosen.");
  list.add("validate_every", validate_every, Range<std::int64_t>{1, 1 << 30},
           "Steps between two validations.");
  list.add("save_every_s", save_every_s, Range<double>{0.0, 1e9},
           "Seconds between two saved training states; 0: only on a signal.");
  adamw.visit(list);
  schedule.visit(list);
}

void check_distill_child(const DistillChildOptions& options) {
  if (options.cosine_weight <= 0.0 && options.kl_weight <= 0.0 && options.lm_weight <= 0.0) {
    fail(ErrorKind::kUsage,
         "distill_child: cosine_weight, kl_weight and lm_weight are all 0; set at least one");
  }
}

DistillChildResult distill_child(RunContext& context, const LoadedModel& parent,
                                 const DistillChildInput& input, const TokenPart& train,
                                 const TokenPart& validation, const DistillChildOptions& options) {
  check_distill_child(options);
  check_validation(validation);
  const Stopwatch watch;
  const std::string key = distill_child_key(context, parent, input, train, validation, options);
  const std::filesystem::path folder = context.folder / "children" / input.name;
  if (context.communicator.is_first()) {
    context.db.set_current(RunTable::kCurves, "distill-child/" + input.name, {key});
  }
  if (const auto done = finished_result(context, key, folder)) {
    return *done;
  }
  ModelWeights child = load_model(input.child_folder, context.type);
  move_to(child, context.device, context.type);
  DistillLoop loop(context, parent, child, input, train, validation, options, key);
  child = {};
  const Progressed done = loop.run();
  DistillChildResult result{folder, key, done.kl_before, done.best_kl, done.best_step};
  const ModelWeights& best = loop.best();
  if (context.communicator.is_first()) {
    write_child_folder(folder, best, parent.path, context.type,
                       {{"puzzle.parent", parent.key}, {"puzzle.key", key}});
    const Json detail = {{"kl_before", done.kl_before},
                         {"kl_after", done.best_kl},
                         {"best_step", done.best_step},
                         {"steps", done.step}};
    context.db.put({.key = key,
                    .stage = "distill-child",
                    .what = input.name,
                    .seconds = watch.seconds(),
                    .detail_json = detail.dump()});
  }
  loop.clean();
  log_info("distill-child: {}: held-out KL {:.4f} -> {:.4f}, best at step {}", input.name,
           result.kl_before, result.kl_after, result.best_step);
  return result;
}

}  // namespace puzzle
