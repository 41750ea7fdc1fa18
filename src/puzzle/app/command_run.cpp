// run, the single stages, plan, options: everything that takes a recipe.
#include <algorithm>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/option_json.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/app/plan.h"
#include "puzzle/app/recipe.h"
#include "puzzle/app/validate.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/roofline.h"
#include "puzzle/stages/check_exports.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/search_costs.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

constexpr const char* kScenarios = "scenarios";

struct PlannedMachine {
  std::string preset;  // empty: this machine
  int devices = 1;

  [[nodiscard]] double flops_per_s(const std::string& device) const {
    if (preset.empty()) {
      return measure_flops_per_s(device) * devices;
    }
    const Hardware hardware = hardware_preset(preset);
    return hardware.peak_flops_per_s(DType::kF32) * hardware.compute_efficiency * devices;
  }
};

struct RecipeArguments {
  std::string what;  // a recipe, or a model
  std::vector<std::string> corpora;
  std::vector<std::string> budgets;
  std::string target;
  std::string run;
  std::vector<std::string> settings;
  bool print_config = false;
  bool check = false;  // of export
};

// What --target can be, and the settings that it stands for.
struct Target {
  std::string name;
  std::string help;
  std::vector<std::string> settings;
};

const std::vector<Target>& targets() {
  static const std::vector<Target> kTargets = {
      {"llama-server",
       "llama.cpp on this machine: measured in it, exported as GGUF, timed",
       {"measure.engine=llama-server", "search.target=deci", "export_child.formats=[gguf]",
        "throughput.enabled=true"}},
      {"native",
       "this program on this machine: measured in it, exported for Hugging Face",
       {"measure.engine=native", "search.target=native", "export_child.formats=[hf]",
        "throughput.enabled=false"}},
      {"roofline",
       "a machine described by measure.hardware; nothing is timed, exports stay as set",
       {"measure.engine=roofline", "throughput.enabled=false"}},
      {"table",
       "a machine whose times measure.table holds; nothing is timed, exports stay as set",
       {"measure.engine=table", "throughput.enabled=false"}}};
  return kTargets;
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const Target& target : targets()) {
    names.push_back(target.name);
  }
  return names;
}

std::string target_help() {
  std::string text = "What the child is for: engine, export and timing that fit together.";
  for (const Target& target : targets()) {
    text += " " + target.name + ": " + target.help + ".";
  }
  return text;
}

std::string budget_syntax(const char* quote) {
  const auto quoted = [&](std::string_view text) { return fmt::format("{0}{1}{0}", quote, text); };
  const std::vector<std::string> decimal = {quoted("K"), quoted("M"), quoted("G")};
  const std::vector<std::string> binary = {quoted("KiB"), quoted("MiB"), quoted("GiB")};
  return fmt::format(
      "a cost, {} (for a rate {}), a number and, if wanted, a suffix: {} (times the parent's; the "
      "only one of seconds), {} (decimal), {} (10^9, not of bytes), {} (bytes). Several budgets "
      "hold together",
      quoted("<="), quoted(">="), quoted("x"), join(decimal, ", "), quoted("B"),
      join(binary, ", "));
}

std::string recipe_footer() {
  std::string text = "Budgets: " + budget_syntax("") + ". Costs:\n";
  for (const SearchCost& cost : search_costs()) {
    text += fmt::format("  {:<24} {}\n", cost.name, cost.help);
  }
  return text +
         "Options for --set, with defaults and ranges: `puzzle options`, or docs/options.md.";
}

// The costs that search.budgets and search.sweep can name, for docs/options.md.
std::string cost_page() {
  std::string text = "## Costs\n\nWhat `search.budgets` and `search.sweep` can name. A budget is " +
                     budget_syntax("`") + ".\n\n| cost | unit | meaning |\n| --- | --- | --- |\n";
  for (const SearchCost& cost : search_costs()) {
    text += fmt::format("| `{}` | {} | {} |\n", cost.name, cost.unit, cost.help);
  }
  return text;
}

void add_recipe_options(CLI::App& verb, RecipeArguments& arguments) {
  CLI::Option* what = verb.add_option(
      "recipe", arguments.what,
      "A recipe (.yaml), or the parent itself: a .gguf file, a Hugging Face folder, or "
      "a llama2.c .bin file");
  refuse_empty(*what->required(), "a recipe or a model");
  // One value each: the positional may stand behind them.
  verb.add_option(
          "--corpus", arguments.corpora,
          "Text to work with (repeatable): .txt, .jsonl[:field], either as .zst, or a folder")
      ->allow_extra_args(false);
  verb.add_option("--budget", arguments.budgets,
                  "Bound on the child (repeatable), e.g. \"parameters <= 0.7x\"; replaces the "
                  "recipe's; costs and suffixes below")
      ->allow_extra_args(false);
  verb.add_option("--target", arguments.target, target_help())
      ->check(CLI::IsMember(target_names()));
  refuse_empty(*verb.add_option("--run", arguments.run, "Folder of the run; replaces the recipe's"),
               "a folder");
  verb.add_option(
          "--set", arguments.settings,
          "Any option of the recipe as name=value (repeatable); `puzzle options` lists them")
      ->allow_extra_args(false);
  verb.add_flag("--print-config", arguments.print_config, "Print the resolved recipe and stop");
  verb.footer(recipe_footer());
}

// runs/<name of the model>: the file's name without .gguf or .bin, or the folder's whole name, dots
// and all.
std::string default_run_folder(const fs::path& model) {
  fs::path path = fs::absolute(model).lexically_normal();
  if (path.filename().empty()) {
    path = path.parent_path();
  }
  const bool has_type = path.extension() == ".gguf" || path.extension() == ".bin";
  return "runs/" + (has_type ? path.stem() : path.filename()).string();
}

Recipe resolve_recipe(const RecipeArguments& arguments) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  const fs::path what = arguments.what;
  if (what.extension() == ".yaml" || what.extension() == ".yml") {
    list.load_yaml(what);
  } else {
    recipe.model = arguments.what;
    recipe.run = default_run_folder(what);
  }
  if (!arguments.corpora.empty()) {
    recipe.data.sources = arguments.corpora;
  }
  if (!arguments.budgets.empty()) {
    recipe.search.budgets = arguments.budgets;
  }
  for (const Target& target : targets()) {
    for (const std::string& setting : target.settings) {
      if (target.name == arguments.target) {
        list.set_assignment(setting);
      }
    }
  }
  if (!arguments.run.empty()) {
    recipe.run = arguments.run;
  }
  for (const std::string& setting : arguments.settings) {
    list.set_assignment(setting);
  }
  return recipe;
}

bool printed_config(const RecipeArguments& arguments, GlobalOptions& global, Recipe& recipe) {
  if (arguments.print_config) {
    OptionList list;
    recipe.visit(list);
    if (global.json) {
      print_json(global, config_json(list));
    } else {
      print_text(list.to_yaml());
    }
  }
  return arguments.print_config;
}

// A verb whose stage the recipe leaves out would do nothing.
void check_is_part_of_run(const Recipe& recipe, const std::string& stage) {
  const auto left_out = [&](const char* name, bool is_part, const char* option) {
    if (stage == name && !is_part) {
      fail(ErrorKind::kUsage, "{}: the recipe leaves it out: {}", stage, option);
    }
  };
  left_out("distill-blocks", recipe.train_blocks, "train_blocks is false");
  left_out("repair", recipe.repair_child, "repair_child is false");
  left_out("distill-child", recipe.train_child, "train_child is false");
  left_out("export", !recipe.export_child.formats.empty(), "export_child.formats is empty");
  left_out("throughput", recipe.throughput.enabled, "throughput.enabled is false");
  for (const char* timing : {"throughput", kScenarios}) {
    left_out(timing, gguf_format_target(recipe.export_child.formats).has_value(),
             "export_child.formats holds no gguf");
  }
}

void run_stages(const RecipeArguments& arguments, GlobalOptions& global, const std::string& last) {
  Recipe recipe = resolve_recipe(arguments);
  if (printed_config(arguments, global, recipe)) {
    return;
  }
  recipe.scenarios.enabled = recipe.scenarios.enabled || last == kScenarios;
  check_is_part_of_run(recipe, last);
  const std::unique_ptr<Communicator> communicator = make_communicator(recipe.communicator);
  Pipeline pipeline(recipe, *communicator, global.command);
  pipeline.run_until(last);
  if (!communicator->is_first()) {
    return;
  }
  std::vector<ExportCheck> checks;
  if (arguments.check) {
    checks = pipeline.check_exports();
  }
  if (global.json) {
    Json summary = pipeline.summary();
    if (arguments.check) {
      summary["checks"] = export_checks_json(checks);
    }
    print_json(global, summary);
  } else if (arguments.check) {
    print_text(export_checks_text(checks));
  } else if (last == Pipeline::stages().back().name) {
    print_text(pipeline.result_text());
  } else if (last == kScenarios) {
    print_text(pipeline.scenarios_text());
  }
  require_agreement(checks);
}

void add_stage(CLI::App& app, GlobalOptions& global, Action& selected, const std::string& name,
               const std::string& help, const std::string& last) {
  auto arguments = std::make_shared<RecipeArguments>();
  CLI::App* verb = app.add_subcommand(name, help);
  add_recipe_options(*verb, *arguments);
  if (name == "export") {
    verb->add_flag("--check", arguments->check,
                   "Run each file in llama.cpp or transformers and compare its log-probabilities "
                   "with the native decoder's; fails where they differ by more than rounding "
                   "explains, or where an engine is missing");
  }
  verb->callback([arguments, last, &global, &selected] {
    selected.splits_over_ranks = true;
    selected.run = [arguments, last, &global] { run_stages(*arguments, global, last); };
  });
}

void add_plan(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto arguments = std::make_shared<RecipeArguments>();
  auto machine = std::make_shared<PlannedMachine>();
  CLI::App* verb = app.add_subcommand(
      "plan",
      "What a run will cost: tokens, FLOPs, memory, disk and time per stage; starts nothing");
  add_recipe_options(*verb, *arguments);
  verb->add_option("--hardware", machine->preset,
                   "Plan for this machine instead of the one at hand (fp32 peak times efficiency)")
      ->check(CLI::IsMember(hardware_preset_names()));
  verb->add_option("--devices", machine->devices, "How many of it, assumed to scale")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->callback([arguments, machine, &global, &selected] {
    selected.run = [arguments, machine, &global] {
      Recipe recipe = resolve_recipe(*arguments);
      if (printed_config(*arguments, global, recipe)) {
        return;
      }
      const ModelSpec parent =
          load_validated_parent(recipe, UselessSettings::kRefuse, CorpusCheck::kMayBeMissing);
      set_num_threads(recipe.threads);
      const Plan plan = make_plan(recipe, parent, machine->flops_per_s(recipe.device));
      if (global.json) {
        print_json(global, plan_json(plan));
      } else {
        print_text(plan_text(plan));
      }
    };
  });
}

void add_options_page(CLI::App& app, GlobalOptions& global, Action& selected) {
  CLI::App* verb =
      app.add_subcommand("options", "Every option of a recipe with default and range, as Markdown");
  verb->callback([&global, &selected] {
    selected.run = [&global] {
      Recipe recipe;
      OptionList list;
      recipe.visit(list);
      if (global.json) {
        print_json(global, {{"options", options_json(list)}});
        return;
      }
      print_text(
          "# Options of a recipe\n\nWritten by `puzzle options`; a test compares this page with "
          "the program.\n\n" +
          list.to_markdown() + "\n" + cost_page());
    };
  });
}

}  // namespace

void add_run_commands(CLI::App& app, GlobalOptions& global, Action& selected) {
  const std::string last = Pipeline::stages().back().name;
  add_stage(app, global, selected, "run", "All stages, from the parent to the report", last);
  add_plan(app, global, selected);
  for (const Pipeline::Stage& stage : Pipeline::stages()) {
    if (stage.name != last) {  // `report` takes the folder of a run
      add_stage(app, global, selected, stage.name,
                stage.help + "; runs the stages before it where they are not done", stage.name);
    }
  }
  add_options_page(app, global, selected);
}

}  // namespace puzzle
