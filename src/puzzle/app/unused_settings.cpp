#include "puzzle/app/unused_settings.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "puzzle/app/option_json.h"
#include "puzzle/base/error.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/hf_export.h"

namespace puzzle {
namespace {

// Options of one name, or of all names below one that ends in a dot, and when they count. Settings
// of a stage that is switched off (train_child=false) are not among them: they are what switching
// it on again would find.
struct Effect {
  std::string names;
  bool is_used;
  std::string otherwise;  // why not

  [[nodiscard]] bool is_about(const std::string& option) const {
    return names.ends_with('.') ? option.starts_with(names) : option == names;
  }
};

bool holds(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

void add_measure_effects(const Recipe& recipe, std::vector<Effect>& effects) {
  const std::string& engine = recipe.measure.engine;
  const bool predicts = recipe.scenarios.enabled && recipe.scenarios.predict;
  const bool runs = engine == "native" || engine == "llama-server" || predicts;
  const std::string is = "measure.engine is " + engine;
  effects.insert(effects.end(),
                 {{"measure.table", engine == "table", is},
                  {"measure.hardware.", engine == "roofline", is},
                  {"measure.types", engine == "llama-server" || engine == "roofline", is},
                  {"measure.contexts", engine != "table", is},
                  {"measure.steps", engine == "llama-server" || predicts, is},
                  {"measure.stack_layers", runs, is},
                  {"measure.widths", runs, is}});
}

void add_search_effects(const Recipe& recipe, std::vector<Effect>& effects) {
  SearchOptions search = recipe.search;
  search.baselines.insert(search.baselines.end(), recipe.compare.begin(), recipe.compare.end());
  const bool drops = search.method == "depth-only" || holds(search.baselines, "depth-only");
  const std::string nothing = "the search measures no children";
  for (const char* name : {"search.num_tokens", "search.state_mib", "search.batch_windows"}) {
    effects.push_back({name, search.measures(), nothing});
  }
  for (const char* name : {"search.rounds", "search.local_forwards"}) {
    effects.push_back(
        {name, search.goes_on(),
         fmt::format("search.method is {} and search.metric {}", search.method, search.metric)});
  }
  for (const char* name : {"search.round_layers", "search.round_tokens", "search.round_samples"}) {
    effects.push_back({name, search.makes_rounds(), "the search goes in no rounds"});
  }
  effects.push_back(
      {"search.depth", drops, "depth-only is not among search.method, search.baselines, compare"});
}

void add_export_effects(const Recipe& recipe, std::vector<Effect>& effects) {
  const auto& formats = recipe.export_child.formats;
  const bool gguf = has_gguf_format(formats);
  const bool hf = std::any_of(formats.begin(), formats.end(), [](const std::string& format) {
    return find_hf_format(format) != nullptr;
  });
  const std::string no_gguf = "export_child.formats holds no gguf";
  const std::string why = gguf ? "throughput.enabled is false" : no_gguf;
  const bool timed = gguf && recipe.throughput.enabled;
  effects.insert(effects.end(), {{"export_child.types", gguf, no_gguf},
                                 {"export_child.hf_dtype", hf, "export_child.formats holds no hf"},
                                 {"throughput.quality_tokens", gguf, no_gguf},
                                 {"throughput.log_prob_tokens", gguf, no_gguf}});
  const ScenarioTableOptions& table = recipe.scenarios;
  const std::string no_table = gguf ? "scenarios.enabled is false" : no_gguf;
  for (const char* name : {"scenarios.lengths", "scenarios.batch", "scenarios.predict"}) {
    effects.push_back({name, gguf && table.enabled, no_table});
  }
  effects.push_back({"scenarios.enabled", gguf, no_gguf});
  const std::string& engine = recipe.measure.engine;
  const bool runs_files = timed || (gguf && table.enabled);
  const std::string neither = why + ", and measure.engine is " + engine;
  const std::string no_server = no_gguf + ", and measure.engine is " + engine;
  effects.insert(
      effects.end(),
      {{"llama_server.", gguf || engine == "llama-server", no_server},  // export --check
       {"timing.", runs_files || engine == "llama-server" || engine == "native", neither}});
}

std::vector<Effect> all_effects(const Recipe& recipe) {
  const bool fitted = recipe.init_library.init == "least-squares";
  const std::string& scoring = recipe.score.method;
  const bool scores_text = scoring != "downstream";
  const bool estimates = is_estimated(recipe.score);
  const EvaluateOptions& evaluate = recipe.evaluate;
  const bool questions = !evaluate.questions.all().empty();
  const bool nested_widths = recipe.distill_blocks.widths != "separate";
  const std::string separate = "distill_blocks.widths is separate";
  std::vector<Effect> effects = {
      {"data.marker", recipe.data.split == "marker", "data.split is " + recipe.data.split},
      {"init_library.token_weights", fitted, "init_library.init is paper"},
      {"init_library.lambda", fitted, "init_library.init is paper"},
      {"distill_blocks.widths_per_step", nested_widths, separate},
      {"distill_blocks.nested_learning_rate", nested_widths, separate},
      {"distill_child.cosine_over", recipe.distill_child.cosine_weight > 0.0,
       "distill_child.cosine_weight is 0"},
      {"repair_trained", recipe.train_child && recipe.repair_child,
       recipe.train_child ? "repair_child is false" : "train_child is false"},
      {"search.max_shared_fraction", recipe.search.solutions > 1 || recipe.search.validate > 1,
       "search.solutions is 1"},
      {"evaluate.sets.", questions, "evaluate names no set of questions"},
      {"evaluate.long_text.", !evaluate.long_text.lengths.empty(),
       "evaluate.long_text.lengths is empty"},
      {"score.num_tokens", scores_text, "score.method is downstream"},
      {"score.batch_windows", scores_text, "score.method is downstream"},
      {"score.hidden_mib", scores_text && scoring != "gradient", "score.method is " + scoring},
      {"score.samples", estimates, "score.method is " + scoring},
      {"score.exact_above", scoring == "hybrid", "score.method is " + scoring},
      {"score.exact_every", scoring == "hybrid", "score.method is " + scoring},
      {"score.exact_giants", scoring == "hybrid", "score.method is " + scoring},
      {"score.exact_share", scoring == "hybrid", "score.method is " + scoring},
      {"score.sets.", !scores_text, "score.method is " + scoring}};
  add_search_effects(recipe, effects);
  add_measure_effects(recipe, effects);
  add_export_effects(recipe, effects);
  return effects;
}

}  // namespace

std::vector<std::string> unused_settings(const Recipe& recipe) {
  Recipe mine = recipe;
  Recipe defaults;
  OptionList my_list;
  OptionList default_list;
  mine.visit(my_list);
  defaults.visit(default_list);
  const std::set<std::string> changed = changed_options(my_list, default_list);
  std::vector<std::string> sentences;
  for (const Effect& effect : all_effects(recipe)) {
    PUZZLE_CHECK(
        std::ranges::any_of(my_list.fields(),
                            [&](const OptionField& field) { return effect.is_about(field.name); }),
        "there is no option {}", effect.names);
    if (effect.is_used) {
      continue;
    }
    for (const std::string& name : changed) {
      if (effect.is_about(name)) {
        sentences.push_back(fmt::format("{} has no effect: {}", name, effect.otherwise));
      }
    }
  }
  return sentences;
}

}  // namespace puzzle
