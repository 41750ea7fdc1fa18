#include "puzzle/app/pipeline.h"

#include <algorithm>
#include <optional>
#include <set>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/failure.h"
#include "puzzle/app/scenario_text.h"
#include "puzzle/app/stage_times.h"
#include "puzzle/app/validate.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/throughput_rows.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/search_budgets.h"
#include "puzzle/tensor/device.h"

namespace puzzle {

const std::vector<Pipeline::Stage>& Pipeline::stages() {
  static const std::vector<Stage> kStages = {
      {"init-library", "Weights for every variant, in closed form", &Pipeline::init_library_stage},
      {"distill-blocks", "Train the variants layer by layer against the parent (BLD)",
       &Pipeline::distill_blocks_stage},
      {"score", "Damage each variant does when it replaces the parent's block",
       &Pipeline::score_stage},
      {"measure", "Seconds each sub-block costs in the engine", &Pipeline::measure_stage},
      {"search", "One block per layer under the budgets", &Pipeline::search_stage},
      {"assemble", "Write the child that the search chose", &Pipeline::assemble_stage},
      {"repair", "Refit the child's matrices in closed form", &Pipeline::repair_stage},
      {"distill-child", "Train the whole child against the parent (GKD)",
       &Pipeline::distill_child_stage},
      {"evaluate", "Parent and children side by side on held-out text and questions",
       &Pipeline::evaluate_stage},
      {"export", "The child for llama.cpp and for Hugging Face", &Pipeline::export_stage},
      {"throughput", "Time the exported child beside its parent in llama.cpp",
       &Pipeline::throughput_stage},
      {"scenarios", "Time both over a table of prompt and generation lengths and batches",
       &Pipeline::scenarios_stage},
      {"report", "One page with everything", &Pipeline::report_stage}};
  return kStages;
}

std::vector<std::string> stage_names() {
  std::vector<std::string> names;
  for (const Pipeline::Stage& stage : Pipeline::stages()) {
    names.push_back(stage.name);
  }
  return names;
}

std::size_t stage_index(const std::string& name) {
  const std::vector<std::string> names = stage_names();
  const auto found = std::find(names.begin(), names.end(), name);
  PUZZLE_CHECK(found != names.end(), "no stage {}", name);
  return static_cast<std::size_t>(found - names.begin());
}

void Pipeline::run_until(const std::string& last) {
  last_ = last;
  check_training_text(last);
  check_questions(last);
  if (context_->communicator.is_first()) {
    check_programs(recipe_, last);
  }
  std::optional<Error> failed;
  for (const Stage& stage : stages()) {
    try {
      run_stage(stage);
    } catch (const Error& error) {
      const bool is_timing = stage.name == "throughput" || stage.name == "scenarios";
      if (!is_timing || last == stage.name || error.kind() != ErrorKind::kIo) {
        throw;
      }
      if (context_->communicator.is_first()) {
        log_warning("{}; the report is written without it", error.what());
      }
      failed = error;
    }
    if (stage.name == last) {
      break;
    }
  }
  if (failed) {
    throw Error(*failed);
  }
  if (last == stages().back().name && context_->communicator.is_first()) {
    finish();
  }
}

void Pipeline::run_stage(const Stage& stage) {
  const Stopwatch watch;
  const bool is_first = context_->communicator.is_first();
  const std::optional<StageSitting> sitting =
      is_first ? std::optional<StageSitting>(std::in_place, *db_, stage.name) : std::nullopt;
  try {
    (this->*stage.run)();
  } catch (...) {
    const Failure failure = current_failure(stage.name);
    if (!failure.backtrace.empty()) {
      log_debug("{}", failure.backtrace);
    }
    fail_with(failure.kind, failure.message);
  }
  release_cached_memory(context_->device);  // a stage may start an engine
  if (sitting) {
    sitting->record(*db_, watch.seconds(), peak_resident_bytes());
  }
  log_debug("{} took {:.1f} s", stage.name, watch.seconds());
}

void Pipeline::init_library_stage() {
  const InitLibraryResult result = init_library(*context_, *parent_, space_, parts_->calibration,
                                                parts_->validation, recipe_.init_library);
  library_ = {result.folder, result.key};
}

void Pipeline::distill_blocks_stage() {
  if (!recipe_.train_blocks) {
    if (context_->communicator.is_first()) {
      // Rows of an earlier run that did train them are no longer about this library.
      for (const RunTable table : {RunTable::kVariants, RunTable::kCurves}) {
        db_->set_current(table, "distill-blocks/decoupled", {});
        db_->set_current(table, "distill-blocks/coupled", {});
      }
    }
    return;
  }
  for (const DistillBlocksOptions& pass : distill_blocks_passes(recipe_.distill_blocks)) {
    const DistillBlocksResult result =
        distill_blocks(*context_, *parent_, {library_.folder, library_.key}, space_, parts_->train,
                       parts_->validation, pass);
    library_ = {result.folder, result.key};
  }
}

ScoreOptions Pipeline::score_options() const {
  ScoreOptions options = recipe_.score;
  if (recipe_.train_blocks) {  // what was trained as a whole is no sum of its halves
    const std::vector<std::string>& pairs = recipe_.distill_blocks.pairs;
    options.pairs.insert(options.pairs.end(), pairs.begin(), pairs.end());
  }
  return options;
}

void Pipeline::score_stage() {
  (void)score(*context_, *parent_, {library_.folder, library_.key}, space_, parts_->scoring,
              score_options());
}

void Pipeline::measure_stage() {
  const std::vector<BudgetSpec> budgets = parse_budgets(recipe_.search.budgets);
  const bool has_times =
      std::ranges::any_of(budgets, [](const BudgetSpec& spec) { return spec.cost->is_measured; });
  if (has_times && recipe_.measure.engine == "native" &&
      has_gguf_format(recipe_.export_child.formats) && context_->communicator.is_first()) {
    log_warning(
        "measure.engine is native: budgets on time hold for this program's own decoder, not for "
        "the exported file in llama.cpp; --target llama-server is for that");
  }
  measured_ =
      measure(*context_, *parent_, space_, recipe_.scenario, recipe_.measure, recipe_.engine);
}

ChildSource Pipeline::child_source() const {
  return {.library_folder = library_.folder,
          .library_key = library_.key,
          .validation = &parts_->validation,
          .scoring = &parts_->scoring};
}

void Pipeline::settle_scores() {
  SearchOptions quick = recipe_.search;
  quick.baselines.clear();
  quick.sweep.clear();
  if (quick.method == "mip") {  // others may give one only
    quick.solutions = std::max<std::int64_t>(quick.solutions, 3);
  }
  quick.depth = "one-shot";
  quick.validate = quick.rounds = quick.local_forwards = 0;
  for (std::int64_t added = 1; added > 0;) {
    const SearchResult found = search(*context_, *parent_, space_, recipe_.scenario, measured_.rows,
                                      quick, child_source());
    std::vector<Architecture> chosen;
    chosen.reserve(found.found.size());
    for (const FoundArchitecture& architecture : found.found) {
      chosen.push_back(architecture.layers);
    }
    added = score_chosen(*context_, *parent_, {library_.folder, library_.key}, space_,
                         parts_->scoring, score_options(), chosen);
    if (added > 0) {
      log_info("search: {} of the chosen variants are now scored exactly", added);
    }
  }
}

// What the stages behind the search said of another architecture.
void Pipeline::forget_results() {
  db_->set_current(RunTable::kModels, "export", {});
  db_->set_current(RunTable::kEvaluations, "evaluate", {});
  db_->set_current(RunTable::kEvaluations, "throughput", {});
  db_->set_current(RunTable::kThroughput, "throughput", {});
}

void Pipeline::search_stage() {
  const std::set<std::string> before = context_->communicator.is_first()
                                           ? db_->current_keys(RunTable::kArchitectures, "search")
                                           : std::set<std::string>{};
  if (recipe_.score.method == "hybrid") {
    settle_scores();
  }
  found_ = search(*context_, *parent_, space_, recipe_.scenario, measured_.rows, recipe_.search,
                  child_source());
  if (context_->communicator.is_first() && before != std::set<std::string>{found_.key}) {
    forget_results();
  }
  const auto parameters = static_cast<double>(num_parameters(parent_->weights.spec));
  for (const FoundArchitecture& found : found_.found) {
    log_info("search: {}: predicted damage {:.4f} nats, {:.1f} % of the parent's parameters",
             found.name, found.objective, 100.0 * found.costs.at("parameters") / parameters);
  }
  log_info("search: {}: {}", kChild, architecture_text(chosen().layers));
  if (chosen().layers == parent_->weights.spec.layers && context_->communicator.is_first()) {
    log_warning(
        "search: the parent itself is within the budgets ({}), so it is the child",
        recipe_.search.budgets.empty() ? "none is given" : join(recipe_.search.budgets, ", "));
  }
}

std::string Pipeline::state_name(std::string_view suffix, const std::string& content_key) const {
  return is_cell_ ? fmt::format("{}-{}", suffix.substr(1), content_key.substr(0, kFolderKeyLength))
                  : child_name_ + std::string(suffix);
}

// The last of the stages that make the child writes it under its own name, if it is not shared.
void Pipeline::assemble_stage() {
  const bool is_last = !recipe_.repair_child && !recipe_.train_child;
  const std::string name =
      is_last && !is_cell_ ? child_name_
                           : state_name(kAssembledSuffix, weights_key(library_, chosen().layers));
  const AssembleResult result =
      assemble(*context_, *parent_, {library_.folder, library_.key, chosen().layers, name});
  before_.clear();
  child_ = {is_last ? child_name_ : name, result.folder, result.key};
}

const TokenPart& Pipeline::repair_text() const {
  return recipe_.repair.part == "train" ? parts_->train : parts_->calibration;
}

void Pipeline::repair_stage() {
  if (!recipe_.repair_child) {
    return;
  }
  const bool is_last = !recipe_.train_child;
  KeyBuilder content;
  content.add("child", child_.key).add("text", repair_text().content_key());
  content.add("validation", parts_->validation.content_key());
  add_options_to_key(content, recipe_.repair);
  const std::string name =
      is_last && !is_cell_ ? child_name_ : state_name(kRepairedSuffix, content.key());
  repair_to(name, is_last ? child_name_ : name);
}

void Pipeline::repair_to(const std::string& folder_name, const std::string& name) {
  const RepairResult result = repair(*context_, *parent_, {child_.folder, child_.key, folder_name},
                                     repair_text(), parts_->validation, recipe_.repair);
  before_.push_back(child_);
  child_ = {name, result.folder, result.key};
}

// Cells of one name in one folder may be of other grids or settings.
std::string Pipeline::trained_folder() const {
  if (!is_cell_) {
    return child_name_;
  }
  KeyBuilder content;
  content.add("child", child_.key).add("text", parts_->train.content_key());
  content.add("validation", parts_->validation.content_key()).add("seed", context_->seed);
  add_options_to_key(content, recipe_.distill_child);
  if (recipe_.repair_trained) {
    add_options_to_key(content, recipe_.repair);
  }
  return fmt::format("{}-{}", child_name_, content.key().substr(0, kFolderKeyLength));
}

void Pipeline::distill_child_stage() {
  const bool is_last = !recipe_.repair_trained || !recipe_.repair_child;
  const std::string own_name = trained_folder();
  const std::string trained_name = own_name + std::string(kTrainedSuffix);
  if (context_->communicator.is_first()) {  // curves of another recipe's training
    for (const std::string& name : {own_name, trained_name}) {
      if (!recipe_.train_child || name != (is_last ? own_name : trained_name)) {
        db_->set_current(RunTable::kCurves, "distill-child/" + name, {});
      }
    }
  }
  if (!recipe_.train_child) {
    return;
  }
  const std::string& name = is_last ? own_name : trained_name;
  const DistillChildResult result =
      distill_child(*context_, *parent_, {child_.folder, child_.key, name}, parts_->train,
                    parts_->validation, recipe_.distill_child);
  before_.push_back(child_);
  child_ = {is_last ? child_name_ : name, result.folder, result.key};
  if (!is_last) {
    repair_to(own_name, child_name_);
  }
}

void Pipeline::report_stage() {
  if (context_->communicator.is_first()) {
    const std::filesystem::path file = context_->folder / "report.html";
    write_report(*db_, file);
    log_info("report: {}", file.string());
  }
  context_->communicator.barrier();
}

std::vector<BudgetOutcome> Pipeline::outcomes() const {
  const FoundArchitecture* child = found_.find(kChild);
  if (child == nullptr) {
    return {};
  }
  std::unique_ptr<CostModel> times;
  if (!measured_.rows.empty()) {
    times = std::make_unique<CostModel>(measured_.rows, "measured costs");
  }
  const CostSetting setting = cost_setting(parent_->weights.spec, parent_->path, recipe_.search,
                                           recipe_.scenario, child->batch, times.get());
  return budget_outcomes(parse_budgets(recipe_.search.budgets), setting, child->layers, *db_,
                         recipe_.measure.engine);
}

Json Pipeline::summary() const {
  Json result = run_summary(*db_, last_, outcomes());
  result["run"] = context_->folder.string();
  if (!exported_.gguf.empty()) {
    result["gguf"] = exported_.gguf.string();
  }
  for (const auto& [format, folder] : exported_.folders) {
    result[format] = folder.string();
  }
  return result;
}

std::string Pipeline::scenarios_text() const {
  return scenario_table_text(scenario_throughput(*db_));
}

std::string Pipeline::result_text() const { return run_text(*db_, outcomes()); }

}  // namespace puzzle
