#include "puzzle/app/validate.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "puzzle/app/pipeline.h"
#include "puzzle/app/unused_settings.h"
#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"
#include "puzzle/stages/search_check.h"
#include "puzzle/stages/weight_types.h"
#include "puzzle/text/corpus.h"

namespace puzzle {
namespace {

bool is_in(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool exports_gguf(const Recipe& recipe) { return has_gguf_format(recipe.export_child.formats); }

class Validator {
 public:
  Validator(const Recipe& recipe, const ModelSpec& parent, CorpusCheck corpus)
      : recipe_(recipe), parent_(parent), corpus_(corpus) {}

  void check_all(UselessSettings useless) {
    attempt([&] { space_ = make_search_space(recipe_.search_space, parent_); });
    check_data();
    check_scenario();
    check_scenario_table();
    check_layers("init_library.layers", recipe_.init_library.layers);
    if (space_) {
      attempt([&] { check_score(recipe_.score, parent_, *space_); });
      const ScoreOptions& score = recipe_.score;
      check_questions("score", score.questions, score.sets.max_tokens);
    }
    if (space_ && recipe_.train_blocks) {
      attempt([&] { check_distill_blocks(recipe_.distill_blocks, parent_, *space_); });
      for (const std::string& source : recipe_.distill_blocks.sources) {
        if (!is_in(recipe_.data.sources, source)) {
          add(fmt::format("distill_blocks.sources: '{}' is none of data.sources, which are {}",
                          source, join(recipe_.data.sources, ", ")));
        }
      }
    }
    if (recipe_.score.method != "downstream") {
      attempt([&] { check_scoring_windows(scored_windows()); });
    }
    check_metric();
    check_training();
    check_measure();
    check_export();
    check_evaluate();
    if (useless == UselessSettings::kRefuse) {
      for (const std::string& sentence : unused_settings(recipe_)) {
        add(sentence);
      }
    }
    check_search();
  }

  void throw_if_any() const {
    if (!problems_.empty()) {
      fail(all_infeasible_ ? ErrorKind::kInfeasible : ErrorKind::kUsage, "recipe: {}",
           join(problems_, "; "));
    }
  }

 private:
  void add(const std::string& problem, ErrorKind kind = ErrorKind::kUsage) {
    problems_.push_back(problem);
    all_infeasible_ = all_infeasible_ && kind == ErrorKind::kInfeasible;
  }

  template <class Check>
  void attempt(Check&& check) {
    try {
      check();
    } catch (const Error& error) {
      add(error.what(), error.kind());
    }
  }

  void check_path(const std::string& option, const std::filesystem::path& path) {
    if (!std::filesystem::exists(path)) {
      add(fmt::format("{}: there is no file or folder '{}'", option, path.string()));
    }
  }

  void check_data() {
    const DataOptions& data = recipe_.data;
    if (data.sources.empty()) {
      add("data.sources is empty; name at least one corpus (--corpus)");
    }
    for (const std::string& text : data.sources) {
      attempt([&] {
        const CorpusSource source = parse_corpus_source(text);
        if (std::filesystem::exists(source.path)) {
          (void)corpus_files(source);
        } else if (corpus_ == CorpusCheck::kMustExist) {
          add(
              fmt::format("data.sources: there is no file or folder '{}'; --corpus names another, "
                          "tools/setup.sh --with-corpus fetches the demo's",
                          source.path.string()));
        }
      });
    }
    if (data.window > parent_.context_length) {
      add(fmt::format("data.window is {}, the parent's context {}{}", data.window,
                      parent_.context_length, context_limit()));
    }
    for (const auto& [option, tokens] : {std::pair{"calibration_tokens", data.calibration_tokens},
                                         std::pair{"scoring_tokens", data.scoring_tokens},
                                         std::pair{"validation_tokens", data.validation_tokens},
                                         std::pair{"test_tokens", data.test_tokens}}) {
      if (tokens == 0) {
        add(fmt::format("data.{} is 0, expected some text for this part", option));
      }
    }
  }

  // Costs of tokens beyond a context that this program cut would be those of another model, and
  // llama.cpp goes beyond no model's.
  void check_scenario() {
    if (recipe_.scenario.batch.empty()) {
      add("scenario.batch is empty; name at least one batch size");
    }
    const std::int64_t tokens = recipe_.scenario.prompt_tokens + recipe_.scenario.generated_tokens;
    const bool runs = recipe_.throughput.enabled && exports_gguf(recipe_);
    if ((runs || !parent_.context_limit.empty()) && tokens > parent_.context_length) {
      add(
          fmt::format("scenario: {} tokens of prompt and answer, the parent's context {}{}; "
                      "lower scenario.prompt_tokens or generated_tokens",
                      tokens, parent_.context_length, context_limit()));
    }
  }

  void check_scenario_table() {
    const ScenarioTableOptions& table = recipe_.scenarios;
    attempt([&] {
      if (table.enabled && table.longest() > parent_.context_length) {
        add(
            fmt::format("scenarios.lengths: {} tokens of prompt and answer, the parent's context "
                        "{}{}; name shorter ones",
                        table.longest(), parent_.context_length, context_limit()));
      }
    });
    if (table.enabled && (table.lengths.empty() || table.batch.empty())) {
      add("scenarios: lengths and batch need at least one value each");
    }
    if (table.enabled && recipe_.scenario.cache_type == "fp8") {
      add("scenario.cache_type: fp8, which llama.cpp does not have; use q8_0 for scenarios");
    }
    if (const auto reason = refusal(ExportTarget::kDeci, parent_);
        reason && table.enabled && table.predict && exports_gguf(recipe_)) {
      add(
          fmt::format("scenarios.predict times sub-blocks in llama-server, whose files cannot hold "
                      "the parent's: {}; set it to false",
                      *reason));
    }
  }

  void check_questions(const char* stage, const EvalSetPaths& questions, std::int64_t max_tokens) {
    const std::vector<EvalSetPath> sets = questions.all();
    for (const EvalSetPath& set : sets) {
      check_path(fmt::format("{}.{}", stage, set.option), set.path);
    }
    if (!sets.empty() && !parent_.context_limit.empty() && max_tokens > parent_.context_length) {
      add(fmt::format("{}.sets.max_tokens is {}, the parent's context {}{}", stage, max_tokens,
                      parent_.context_length, context_limit()));
    }
  }

  [[nodiscard]] std::string context_limit() const {
    return parent_.context_limit.empty() ? "" : ": " + parent_.context_limit;
  }

  [[nodiscard]] std::int64_t scored_windows() const {
    const std::int64_t held = recipe_.data.scoring_tokens;
    const std::int64_t wanted = recipe_.score.num_tokens;
    const std::int64_t tokens = wanted > 0 ? std::min(wanted, held) : held;
    return (tokens + recipe_.data.window - 1) / recipe_.data.window;
  }

  void check_layers(const char* option, const std::vector<std::int64_t>& layers) {
    for (const std::int64_t layer : layers) {
      if (layer >= parent_.num_layers()) {
        add(fmt::format("{} names layer {}, the parent has layers 0 to {}", option, layer,
                        parent_.num_layers() - 1));
      }
    }
  }

  // Estimates are of the KL alone.
  void check_metric() {
    const std::string& metric = recipe_.search.metric;
    const std::string& method = recipe_.score.method;
    const bool asks_questions = method == "downstream";
    if (asks_questions != (metric == "downstream")) {
      add(fmt::format(
          "search.metric is {}, which score.method {} does not give; set {}", metric, method,
          asks_questions ? "search.metric to downstream" : "score.method to downstream"));
    } else if (!asks_questions && metric != "kl" && method != "replace-one") {
      add(
          fmt::format("search.metric is {}, which score.method {} does not give; set score.method "
                      "to replace-one",
                      metric, method));
    }
  }

  void check_training() {
    if (recipe_.train_child) {
      attempt([&] { check_distill_child(recipe_.distill_child); });
    }
    if (recipe_.repair_child) {
      attempt([&] { check_repair(recipe_.repair); });
    }
  }

  void check_measure() {
    const MeasureOptions& measure = recipe_.measure;
    if (space_) {
      attempt([&] { puzzle::check_measure(measure, *space_, recipe_.scenario, recipe_.model); });
    }
    if (const auto reason = refusal(ExportTarget::kDeci, parent_);
        reason && measure.engine == "llama-server") {
      add(
          fmt::format("measure.engine is llama-server, whose files cannot hold the parent: {}; use "
                      "native, roofline or table",
                      *reason));
    }
  }

  void check_search() {
    const SearchOptions& search = recipe_.search;
    attempt([&] { check_search_options(search, recipe_.scenario, recipe_.model); });
    if (problems_.empty()) {
      attempt(
          [&] { check_exact_budgets(search, recipe_.scenario, recipe_.model, parent_, *space_); });
    }
    if (recipe_.compare_distilled && (!recipe_.train_child || recipe_.compare.empty())) {
      add("compare_distilled needs train_child and something to compare");
    }
    if (search.measures() && recipe_.data.validation_tokens == 0) {
      add("search measures children (validate, rounds, local_forwards, or depth-only without "
          "search.depth=one-shot), and data.validation_tokens is 0");
    }
    if (const auto reason = refusal(parse_export_target(search.target), parent_)) {
      const bool openelm_holds_it = !refusal(ExportTarget::kOpenElm, parent_);
      add(fmt::format("search.target {} cannot hold the parent: {}; use {}native or nemotron-nas",
                      search.target, *reason, openelm_holds_it ? "openelm, " : ""));
    }
    check_types();
  }

  // One type for what is timed, what is counted in bytes and what is written.
  void check_types() {
    std::optional<WeightTypes> counted;
    attempt(
        [&] { counted = deployed_types(recipe_.search.types, recipe_.scenario, recipe_.model); });
    const auto check_same = [&](const char* option, const std::string& name) {
      std::optional<WeightTypes> types;
      attempt([&] { types = deployed_types(name, recipe_.scenario, recipe_.model); });
      if (counted && types &&
          (types->matrix != counted->matrix || types->embedding != counted->embedding)) {
        add(
            fmt::format("{} is {}, but search.types, whose bytes the budgets count, is {}; give "
                        "both the same",
                        option, name, recipe_.search.types));
      }
    };
    if (recipe_.measure.engine == "llama-server" || recipe_.measure.engine == "roofline") {
      check_same("measure.types", recipe_.measure.types);
    }
    if (exports_gguf(recipe_)) {
      check_same("export_child.types", recipe_.export_child.types);
    }
  }

  // A block that the file could not hold would be found out when everything else is done.
  void check_format(const std::string& format, ExportTarget target) {
    if (const auto reason = refusal(target, parent_)) {
      add(fmt::format("export_child.formats holds {}, which cannot hold the parent: {}; use hf",
                      format, *reason));
      return;
    }
    std::set<std::string> named;
    const auto check_variant = [&](const char* option, const std::string& name,
                                   const BlockSpec& block) {
      const auto reason = refusal(target, parent_, block);
      if (reason && named.insert(fmt::format("{} {}", option, name)).second) {
        add(
            fmt::format("export_child.formats holds {}, which cannot hold {} of search_space.{}: "
                        "{}; leave one of them out",
                        format, name, option, *reason));
      }
    };
    for (std::size_t i = 0; space_ && i < space_->layers.size(); ++i) {
      const BlockSpec& own = parent_.layers[i];
      for (const AttentionSpec& attention : space_->layers[i].attention) {
        check_variant("attention", attention.name(), {attention, own.ffn});
      }
      for (const FfnSpec& ffn : space_->layers[i].ffn) {
        check_variant("ffn", ffn.name(), {own.attention, ffn});
      }
    }
  }

  void check_export() {
    for (const HfFormat& format : hf_formats()) {
      if (is_in(recipe_.export_child.formats, std::string(format.name))) {
        check_format(std::string(format.name), format.target);
      }
    }
    std::optional<ExportTarget> target;
    attempt([&] { target = gguf_format_target(recipe_.export_child.formats); });
    if (target) {
      check_gguf(*target);
    }
  }

  void check_gguf(ExportTarget target) {
    const char* format = target == ExportTarget::kDeci ? "gguf" : "gguf-openelm";
    if (recipe_.search.target != export_target_name(target)) {
      add(
          fmt::format("export_child.formats holds {}, but search.target is {}, whose children a "
                      "GGUF may not hold and whose costs are not the file's; use {}",
                      format, recipe_.search.target, export_target_name(target)));
    }
    if (const auto reason = refusal(target, parent_)) {
      const bool openelm_holds_it = !refusal(ExportTarget::kOpenElm, parent_);
      add(fmt::format(
          "export_child.formats holds {}, which cannot hold the parent: {}; use {}hf "
          "with search.target nemotron-nas",
          format, *reason, openelm_holds_it ? "gguf-openelm with search.target openelm, or " : ""));
    }
  }

  void check_evaluate() {
    const EvaluateOptions& evaluate = recipe_.evaluate;
    check_questions("evaluate", evaluate.questions, evaluate.sets.max_tokens);
    for (const std::int64_t length : evaluate.long_text.lengths) {
      if (length > parent_.context_length) {
        add(fmt::format("evaluate.long_text.lengths holds {}, the parent's context {}{}", length,
                        parent_.context_length, context_limit()));
      }
    }
    if (!evaluate.long_text.lengths.empty() && evaluate.long_text.tasks.empty()) {
      add("evaluate.long_text.tasks is empty; name at least one task");
    }
    if (!evaluate.long_text.haystack.empty()) {
      check_path("evaluate.long_text.haystack", evaluate.long_text.haystack);
    }
    attempt([&] { check_evaluate_options(evaluate); });
  }

  const Recipe& recipe_;
  const ModelSpec& parent_;
  CorpusCheck corpus_;
  std::optional<SearchSpace> space_;
  std::vector<std::string> problems_;
  bool all_infeasible_ = true;
};

}  // namespace

void validate(const Recipe& recipe, const ModelSpec& parent, UselessSettings useless,
              CorpusCheck corpus) {
  Validator validator(recipe, parent, corpus);
  validator.check_all(useless);
  validator.throw_if_any();
}

ModelSpec load_validated_parent(const Recipe& recipe, UselessSettings useless, CorpusCheck corpus) {
  if (recipe.model.empty()) {
    fail(ErrorKind::kUsage, "recipe: model is empty; name the parent");
  }
  ModelSpec parent = load_model_spec(recipe.model);
  validate(recipe, parent, useless, corpus);
  return parent;
}

void check_programs(const Recipe& recipe, const std::string& last) {
  const auto runs = [&](const char* stage) { return stage_index(stage) <= stage_index(last); };
  const auto check_server = [](const LlamaServerOptions& options, const std::string& purpose) {
    try {
      (void)find_llama_server_version(options);
    } catch (const Error& error) {
      fail(error.kind(), "{}: {}; tools/setup.sh --with-server installs one", purpose,
           error.what());
    }
  };
  if (recipe.measure.engine == "llama-server" && runs("measure")) {
    check_server(recipe.engine.llama_server, "measure");
  }
  if (recipe.throughput.enabled && exports_gguf(recipe) && runs("throughput")) {
    check_server(recipe.engine.llama_server,
                 "throughput (--set throughput.enabled=false leaves it out)");
  }
  if (recipe.scenarios.enabled && exports_gguf(recipe) && runs("scenarios")) {
    check_server(recipe.engine.llama_server, "scenarios");
  }
}

}  // namespace puzzle
