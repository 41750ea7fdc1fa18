#include "puzzle/stages/repair.h"

#include <optional>
#include <utility>

#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/child_folder.h"
#include "puzzle/stages/heldout_kl.h"
#include "puzzle/stages/repair_layers.h"

namespace puzzle {
namespace {

constexpr std::int64_t kRepairVersion = 4;

std::string repair_key(const LoadedModel& parent, const RepairInput& input,
                       const TokenPart& calibration, const TokenPart& validation,
                       const RepairOptions& options) {
  RepairOptions relevant = options;
  relevant.state_memory_mib = RepairOptions{}.state_memory_mib;  // changes no result
  KeyBuilder key;
  key.add("stage", "repair").add("version", kRepairVersion);
  key.add("parent", parent.key).add("child", input.child_key).add("name", input.name);
  key.add("calibration", calibration.content_key()).add("validation", validation.content_key());
  add_options_to_key(key, relevant);
  return key.key();
}

TokenPart first_or_all(const TokenPart& part, std::int64_t num_tokens) {
  if (part.num_windows() == 0) {
    fail(ErrorKind::kUsage, "repair: the {} part has no windows; set data.{}_tokens", part.name(),
         part.name());
  }
  return part.limited_to(num_tokens);
}

std::optional<RepairResult> finished_repair(RunContext& context, const std::string& key,
                                            const std::filesystem::path& folder) {
  const Json detail = finished_child(context, folder, key);
  if (detail.is_null()) {
    return std::nullopt;
  }
  const std::string place = context.db.path().string();
  return RepairResult{folder, key, json_double(detail, "kl_before", place),
                      json_double(detail, "kl_after", place), json_int(detail, "refitted", place)};
}

}  // namespace

void RepairOptions::visit(OptionList& list) {
  list.add("part", part, Choices{{"calibration", "train"}}, "Part of the text to refit on.");
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of that part to refit on; 0 uses all of it. Gains grow with them: a tenth of "
           "the KL needs some 40 per input of a matrix.");
  list.add("lambdas", lambdas, Range<double>{0.0, 1e3},
           "Ridges to choose from by held-out error, relative to the mean squared feature; the "
           "larger, the nearer to the weights there are.");
  list.add("inputs", inputs, "Refit what reads a sub-block's input, too: q, k and v, gate and up.");
  list.add("token_weights", token_weights, Choices{{"none", "inverse", "damped"}},
           "What a token counts, as init_library.token_weights; h is the parent's state.");
  list.add("validation_tokens", validation_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Held-out tokens that choose the ridge and decide whether the repair is kept; 0 uses "
           "the whole validation part.");
  list.add("batch_tokens", batch_tokens, Range<std::int64_t>{1, 1 << 24},
           "Tokens that go through a sub-block at once.");
  list.add("state_memory_mib", state_memory_mib, Range<std::int64_t>{0, 1 << 30},
           "MiB of hidden states held in memory by each process for each of parent and child; the "
           "rest goes to a file in the run folder.");
}

void check_repair(const RepairOptions& options) {
  if (options.lambdas.empty()) {
    fail(ErrorKind::kUsage,
         "repair.lambdas is empty: nothing to refit with; or repair_child: false");
  }
}

RepairResult repair(RunContext& context, const LoadedModel& parent, const RepairInput& input,
                    const TokenPart& calibration_part, const TokenPart& validation_part,
                    const RepairOptions& options) {
  const c10::NoGradGuard no_grad;
  check_repair(options);
  const Stopwatch watch;
  const TokenPart calibration = first_or_all(calibration_part, options.num_tokens);
  const TokenPart validation = first_or_all(validation_part, options.validation_tokens);
  const std::string key = repair_key(parent, input, calibration, validation, options);
  const std::filesystem::path folder = context.folder / "children" / input.name;
  const std::filesystem::path layers =
      fmt::format("{}.repair-{}", folder.string(), key.substr(0, 8));
  if (const auto done = finished_repair(context, key, folder)) {
    if (context.communicator.is_first()) {
      std::error_code ignored;  // left by a process that died right after its record
      std::filesystem::remove_all(layers, ignored);
    }
    return *done;
  }
  ModelWeights before = load_model(input.child_folder, context.type);
  move_to(before, context.device, context.type);
  LoadedModel child{input.child_folder, input.child_key, before, parent.geometry, parent.tokenizer};
  RepairResult result{folder, key};
  const HeldoutMeter meter(parent, validation, context.communicator);
  const RatioOfSums kl_before = meter.kl_by_unit(before);
  result.kl_before = kl_before.result(context.communicator).value;
  auto [after, refitted] =
      repair_layers(context, parent, std::move(child), calibration, validation, options, layers);
  const RatioOfSums kl_after = meter.kl_by_unit(after);
  result.kl_after = kl_after.result(context.communicator).value;
  result.refitted = refitted;
  // What is within the noise of this text may be a loss on another.
  const SumRatio change = kl_after.minus(kl_before, context.communicator);
  if (!(change.value < -change.standard_error)) {
    log_warning(
        "repair: {}: held-out KL {:.4f} -> {:.4f} (± {:.4f}) is no sure gain, the child stays as "
        "it was; more repair.num_tokens may help",
        input.name, result.kl_before, result.kl_after, change.standard_error);
    result.kl_after = result.kl_before;
    result.refitted = 0;
    after = before;
  }
  if (context.communicator.is_first()) {
    write_child_folder(folder, after, parent.path, context.type,
                       {{"puzzle.parent", parent.key}, {"puzzle.key", key}});
    const Json detail = {{"kl_before", result.kl_before},
                         {"kl_after", result.kl_after},
                         {"refitted", result.refitted}};
    context.db.put({.key = key,
                    .stage = "repair",
                    .what = input.name,
                    .seconds = watch.seconds(),
                    .detail_json = detail.dump()});
    std::error_code ignored;
    std::filesystem::remove_all(layers, ignored);
  }
  context.communicator.barrier();
  log_info("repair: {}: held-out KL {:.4f} -> {:.4f}, {} matrices refitted", input.name,
           result.kl_before, result.kl_after, result.refitted);
  return result;
}

}  // namespace puzzle
