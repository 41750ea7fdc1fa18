// A pipeline's run folder: opened at the start, marked as finished at the end.
#include <algorithm>
#include <utility>

#include "puzzle/app/pipeline.h"
#include "puzzle/app/stage_times.h"
#include "puzzle/app/validate.h"
#include "puzzle/app/version.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/eval_sets.h"
#include "puzzle/data/token_file.h"
#include "puzzle/results/facts.h"
#include "puzzle/stages/model_card.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

std::string resolved_yaml(const Recipe& recipe) {
  Recipe copy = recipe;
  OptionList list;
  copy.visit(list);
  return list.to_yaml();
}

// What a run starts from: the licence where only the parent's files say it, and a baseline search
// for every child to compare with.
Recipe complete_recipe(Recipe recipe, UselessSettings useless) {
  (void)load_validated_parent(recipe, useless);
  if (recipe.license.empty()) {
    recipe.license = license_of(recipe.model);
  }
  std::vector<std::string>& baselines = recipe.search.baselines;
  for (const std::string& name : recipe.compare) {
    if (name != kPaperInit &&
        std::find(baselines.begin(), baselines.end(), name) == baselines.end()) {
      baselines.push_back(name);
    }
  }
  return recipe;
}

constexpr const char* kFinishedFact = "finished_at";
constexpr const char* kFinishedRecipe = "finished_recipe";

// What a finished run is finished with; the verb `scenarios` adds only its table.
std::string finished_recipe(Recipe recipe) {
  recipe.scenarios.enabled = false;
  return KeyBuilder().add("recipe", resolved_yaml(recipe)).key();
}

void warn_of_scarce_text(const char* option, std::int64_t wanted, std::int64_t held) {
  if (wanted > held) {
    log_warning(
        "{} is {}, the train part has {} tokens: less is trained on, or the same again; "
        "add text, or lower it",
        option, wanted, held);
  }
}

}  // namespace

Pipeline::Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command)
    : Pipeline(complete_recipe(recipe, UselessSettings::kRefuse), kChild, /*is_cell=*/false,
               communicator, command) {}

Pipeline::Pipeline(const Recipe& recipe, Communicator& communicator, const std::string& command,
                   std::string child_name)
    : Pipeline(complete_recipe(recipe, UselessSettings::kLetPass), std::move(child_name),
               /*is_cell=*/true, communicator, command) {}

Pipeline::Pipeline(const Recipe& complete_recipe, std::string child_name, bool is_cell,
                   Communicator& communicator, const std::string& command)
    : recipe_(complete_recipe), child_name_(std::move(child_name)), is_cell_(is_cell) {
  // Ranks of one machine share its cores as their launcher said.
  if (recipe_.threads > 0 || communicator.size() == 1) {
    set_num_threads(recipe_.threads);
  }
  make_deterministic();
  if (communicator.size() > 1 && recipe_.device.starts_with("cuda:")) {
    fail(ErrorKind::kUsage,
         "device is {}, which would put all {} ranks on one GPU; with cuda each takes its own",
         recipe_.device, communicator.size());
  }
  const c10::Device device = parse_device(recipe_.device, communicator.local_rank());
  log_debug("{}", describe_device(device));
  communicator.agree("recipe", resolved_yaml(recipe_));
  if (communicator.is_first()) {
    open_folder();
  }
  communicator.barrier();
  const std::filesystem::path folder = recipe_.run;
  if (!db_) {
    db_ = std::make_unique<RunDb>(folder / "run.db", RunDbMode::kRead);
  }
  context_ = std::make_unique<RunContext>(
      RunContext{folder, *db_, communicator, device, c10::ScalarType::Float, recipe_.seed});
  parent_ = std::make_unique<LoadedModel>(open_model(recipe_.model, device, context_->type));
  space_ = make_search_space(recipe_.search_space, parent_->weights.spec);
  if (communicator.is_first()) {
    record_facts(command);
  }
  parts_ = std::make_unique<TokenParts>(split_tokens(token_file(communicator), recipe_.data));
}

Pipeline::~Pipeline() = default;

// Rank 0 makes it, if it is not there.
std::shared_ptr<const TokenFile> Pipeline::token_file(Communicator& communicator) const {
  const auto load = [&] {
    return load_token_file(context_->folder / "data", recipe_.data, *parent_->tokenizer);
  };
  std::shared_ptr<const TokenFile> file;
  if (communicator.is_first()) {
    file = load();
  }
  communicator.barrier();
  return file ? file : load();
}

bool Pipeline::is_finished(const RunDb& db) { return !db.meta(kFinishedFact).value_or("").empty(); }

void Pipeline::record_finished(RunDb& db) { db.put_meta(kFinishedFact, utc_now()); }

void Pipeline::open_folder() {
  const std::filesystem::path folder = recipe_.run;
  make_folder(folder);
  lock_.emplace(folder);
  for (const auto& path : remove_stale_temporaries(folder)) {
    log_debug("removed {}, which a killed process left", path.string());
  }
  write_text_file(folder / "recipe.yaml", resolved_yaml(recipe_));
  db_ = std::make_unique<RunDb>(folder / "run.db");
}

void Pipeline::record_facts(const std::string& command) {
  put_facts(*db_, {.version = kPuzzleVersion,
                   .build = build_description(),
                   .recipe_yaml = resolved_yaml(recipe_),
                   .seed = recipe_.seed,
                   .command = command});
  put_machine(*db_, read_machine());
  ParentFacts facts = parent_facts(parent_->weights.spec);
  facts.license = recipe_.license;
  facts.weights_key = parent_->key;
  if (std::filesystem::is_regular_file(recipe_.model)) {
    facts.file_bytes = static_cast<std::int64_t>(std::filesystem::file_size(recipe_.model));
  }
  put_parent(*db_, facts);
  if (db_->meta(kFinishedRecipe) != finished_recipe(recipe_)) {
    db_->put_meta(kFinishedFact, "");
  }
}

// Of a run up to `last`, before its first stage.
void Pipeline::check_training_text(const std::string& last) const {
  const auto runs = [&](const char* stage) { return stage_index(stage) <= stage_index(last); };
  const bool trains_blocks = recipe_.train_blocks && runs("distill-blocks");
  const bool trains_child = recipe_.train_child && runs("distill-child");
  const std::int64_t held = parts_->train.num_tokens();
  if ((trains_blocks || trains_child) && held == 0) {
    fail(ErrorKind::kUsage,
         "data: the other parts leave no text to train on; add text, lower "
         "data.calibration_tokens, or set train_blocks and train_child to false");
  }
  if (!context_->communicator.is_first()) {
    return;
  }
  if (trains_blocks && recipe_.distill_blocks.sources.empty()) {
    warn_of_scarce_text("distill_blocks.num_tokens", recipe_.distill_blocks.num_tokens, held);
  }
  if (trains_child) {
    warn_of_scarce_text("distill_child.num_tokens", recipe_.distill_child.num_tokens, held);
  }
}

// Files of questions that cannot be used show before hours of training, not after.
void Pipeline::check_questions(const std::string& last) const {
  const auto load = [&](const char* stage, const EvalSetPaths& paths, const EvalSetOptions& sets) {
    if (stage_index(stage) <= stage_index(last)) {
      for (const EvalSetPath& set : paths.all()) {
        (void)load_eval_set(set.kind, set.path, *parent_->tokenizer, sets);
      }
    }
  };
  if (recipe_.score.method == "downstream") {
    load("score", recipe_.score.questions, recipe_.score.sets);
  }
  load("evaluate", recipe_.evaluate.questions, recipe_.evaluate.sets);
}

void Pipeline::finish() {
  record_finished(*db_);
  db_->put_meta(kFinishedRecipe, finished_recipe(recipe_));
  double seconds = 0.0;
  for (const StageTotal& total : stage_totals(*db_, stage_names())) {
    seconds += total.seconds;
  }
  log_info("run: {} of work in all, peak memory {}", human_seconds(seconds),
           human_bytes(static_cast<double>(peak_resident_bytes())));
  for (const BudgetOutcome& outcome : outcomes()) {
    if (!outcome.is_met) {
      log_warning("budget {}", outcome_text(outcome));
    }
  }
}

}  // namespace puzzle
