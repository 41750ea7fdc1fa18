// run, the single stages, plan, report, clean, options: everything that takes a recipe.
#include <cstdio>
#include <filesystem>
#include <system_error>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/app/plan.h"
#include "puzzle/app/recipe.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/engine/roofline.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

struct PlannedMachine {
  std::string preset;  // empty: this machine
  int devices = 1;

  [[nodiscard]] double flops_per_s(const std::string& device) const {
    if (preset.empty()) {
      return measure_flops_per_s(device) * devices;
    }
    const Hardware hardware = hardware_preset(preset);
    return hardware.peak_flops_per_s(DType::kBF16) * hardware.compute_efficiency * devices;
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
};

void add_recipe_options(CLI::App& verb, RecipeArguments& arguments) {
  verb.add_option("recipe", arguments.what,
                  "A recipe (.yaml), or the parent itself: a .gguf file or a Hugging Face folder")
      ->required();
  verb.add_option(
      "--corpus", arguments.corpora,
      "Text to work with (repeatable): .txt, .jsonl[:field], either as .zst, or a folder");
  verb.add_option(
      "--budget", arguments.budgets,
      "Bound on the child (repeatable), e.g. \"parameters <= 0.7x\"; replaces the recipe's");
  verb.add_option("--target", arguments.target,
                  "Engine to build for: llama-server (measured here), native, roofline or table")
      ->check(CLI::IsMember({"llama-server", "native", "roofline", "table"}));
  verb.add_option("--run", arguments.run, "Folder of the run; replaces the recipe's");
  verb.add_option(
      "--set", arguments.settings,
      "Any option of the recipe as name=value (repeatable); docs/options.md lists them");
  verb.add_flag("--print-config", arguments.print_config, "Print the resolved recipe and stop");
}

Recipe resolve_recipe(const RecipeArguments& arguments) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  const std::filesystem::path what = arguments.what;
  if (what.extension() == ".yaml" || what.extension() == ".yml") {
    list.load_yaml(what);
  } else {
    recipe.model = arguments.what;
    recipe.run = "runs/" + what.stem().string();
  }
  if (!arguments.corpora.empty()) {
    recipe.data.sources = arguments.corpora;
  }
  if (!arguments.budgets.empty()) {
    recipe.search.budgets = arguments.budgets;
  }
  if (!arguments.target.empty()) {
    recipe.measure.engine = arguments.target;
  }
  if (!arguments.run.empty()) {
    recipe.run = arguments.run;
  }
  for (const std::string& setting : arguments.settings) {
    list.set_assignment(setting);
  }
  return recipe;
}

bool printed_config(const RecipeArguments& arguments, Recipe& recipe) {
  if (arguments.print_config) {
    OptionList list;
    recipe.visit(list);
    std::fputs(list.to_yaml().c_str(), stdout);
  }
  return arguments.print_config;
}

void print_json(const Json& value) {
  std::fputs((value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n").c_str(), stdout);
}

void run_stages(const RecipeArguments& arguments, const GlobalOptions& global,
                const std::string& last) {
  Recipe recipe = resolve_recipe(arguments);
  if (printed_config(arguments, recipe)) {
    return;
  }
  const std::unique_ptr<Communicator> communicator = make_communicator(recipe.communicator);
  Pipeline pipeline(recipe, *communicator, global.command);
  pipeline.run_until(last);
  if (global.json && communicator->is_first()) {
    print_json(pipeline.summary());
  }
}

void add_stage(CLI::App& app, GlobalOptions& global, Action& selected, const std::string& name,
               const std::string& help, const std::string& last) {
  auto arguments = std::make_shared<RecipeArguments>();
  CLI::App* verb = app.add_subcommand(name, help);
  add_recipe_options(*verb, *arguments);
  verb->callback([arguments, last, &global, &selected] {
    selected = [arguments, last, &global] { run_stages(*arguments, global, last); };
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
                   "Plan for this machine instead of the one at hand (BF16 peak times efficiency)")
      ->check(CLI::IsMember(hardware_preset_names()));
  verb->add_option("--devices", machine->devices, "How many of it, assumed to scale")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  verb->callback([arguments, machine, &global, &selected] {
    selected = [arguments, machine, &global] {
      Recipe recipe = resolve_recipe(*arguments);
      if (printed_config(*arguments, recipe)) {
        return;
      }
      const ModelSpec parent = load_model_spec(recipe.model);
      const Plan plan = make_plan(recipe, parent, machine->flops_per_s(recipe.device));
      if (global.json) {
        print_json(plan_json(plan));
      } else {
        std::fputs(plan_text(plan).c_str(), stdout);
      }
    };
  });
}

void add_report(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto folder = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("report", "Write report.html of a run, finished or not");
  verb->add_option("run", *folder, "Folder of the run")->required();
  verb->callback([folder, &global, &selected] {
    selected = [folder, &global] {
      const std::filesystem::path run = *folder;
      const RunDb db(run / "run.db", RunDbMode::kRead);
      write_report(db, run / "report.html");
      if (global.json) {
        print_json(db.dump_json({.rows = RowSet::kCurrent}));
      } else {
        std::fputs(((run / "report.html").string() + "\n").c_str(), stdout);
      }
    };
  });
}

void add_clean(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto folder = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand(
      "clean", "Remove what a finished run no longer needs: library, tokens, training states");
  verb->add_option("run", *folder, "Folder of the run")->required();
  verb->callback([folder, &global, &selected] {
    selected = [folder, &global] {
      const std::filesystem::path run = *folder;
      if (!std::filesystem::exists(run / "run.db")) {
        fail(ErrorKind::kUsage, "{}: holds no run.db; expected the folder of a run", run.string());
      }
      std::vector<std::string> removed;
      const auto remove = [&](const std::filesystem::path& path) {
        std::error_code error;
        if (std::filesystem::remove_all(path, error) > 0 && !error) {
          removed.push_back(path.string());
        }
      };
      for (const char* name : {"library", "data", "measure", "children/child-before"}) {
        remove(run / name);
      }
      if (std::filesystem::exists(run / "children")) {
        for (const auto& entry : std::filesystem::directory_iterator(run / "children")) {
          if (entry.path().extension().string().starts_with(".training-")) {
            remove(entry.path());
          }
        }
      }
      if (global.json) {
        print_json({{"removed", removed}});
      } else {
        for (const std::string& path : removed) {
          std::fputs((path + "\n").c_str(), stdout);
        }
      }
    };
  });
}

void add_options_page(CLI::App& app, Action& selected) {
  CLI::App* verb =
      app.add_subcommand("options", "Every option of a recipe with default and range, as Markdown");
  verb->callback([&selected] {
    selected = [] {
      Recipe recipe;
      OptionList list;
      recipe.visit(list);
      const std::string head =
          "# Options of a recipe\n\nWritten by `puzzle options`; a test compares this page with "
          "the "
          "program.\n\n";
      std::fputs((head + list.to_markdown()).c_str(), stdout);
    };
  });
}

}  // namespace

void add_run_commands(CLI::App& app, GlobalOptions& global, Action& selected) {
  add_stage(app, global, selected, "run", "All stages, from the parent to the report", "report");
  add_plan(app, global, selected);
  const std::vector<std::pair<std::string, std::string>> stages = {
      {"init-library", "Weights for every variant, in closed form"},
      {"distill-blocks", "Train the variants layer by layer against the parent (BLD)"},
      {"score", "Damage each variant does when it replaces the parent's block"},
      {"measure", "Seconds each sub-block costs in the engine"},
      {"search", "One block per layer under the budgets"},
      {"assemble", "Write the child that the search chose"},
      {"distill-child", "Train the whole child against the parent (GKD)"},
      {"evaluate", "Parent and children side by side on held-out text and questions"},
      {"export", "The child for llama.cpp and for Hugging Face"},
      {"throughput", "Time the exported child beside its parent in llama.cpp"}};
  for (const auto& [name, help] : stages) {
    add_stage(app, global, selected, name,
              help + "; runs the stages before it where they are not done", name);
  }
  add_report(app, global, selected);
  add_clean(app, global, selected);
  add_options_page(app, selected);
}

}  // namespace puzzle
