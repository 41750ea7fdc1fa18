// compare: several recipes side by side.
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/compare.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

struct CompareArguments {
  std::string grid;
  std::string run;
  std::string output;
  std::vector<std::string> settings;
};

std::string help_of(const OptionList& list, int name_width) {
  std::string text;
  for (const OptionField& field : list.fields()) {
    text += fmt::format("  {:<{}} {}\n", field.name, name_width, field.help);
  }
  return text;
}

std::string grid_footer() {
  CompareOptions options;
  OptionList list;
  options.visit(list);
  CompressOptions compress;
  OptionList compress_list;
  compress_list.section("compress", compress);
  return "A grid is a YAML file with:\n" + help_of(list, 12) +
         "Settings are those of a recipe (`puzzle options`), and in a cell also:\n" +
         help_of(compress_list, 22) +
         "Cells share what they can: tokens, libraries, scores, times. Example:\n"
         "  recipe: smollm2-cpu.yaml\n"
         "  set: [\"search.budgets=[parameters <= 0.75x]\"]\n"
         "  cells: [ours, \"paper: init_library.init=paper; repair_child=false\"]";
}

void compare(const CompareArguments& arguments, GlobalOptions& global) {
  CompareGrid grid = load_compare_grid(arguments.grid);
  if (!arguments.run.empty()) {
    grid.options.run = arguments.run;
  }
  grid.options.set.insert(grid.options.set.end(), arguments.settings.begin(),
                          arguments.settings.end());
  const CommunicatorOptions options = cell_recipe(grid, grid.cells.front()).communicator;
  const std::unique_ptr<Communicator> communicator = make_communicator(options);
  const Comparison comparison = run_compare(grid, *communicator, global.command);
  if (!communicator->is_first()) {
    return;
  }
  const std::string page = compare_page(grid, comparison, global.command);
  const std::filesystem::path folder = grid.options.run;
  write_text_file(
      arguments.output.empty() ? folder / "compare.md" : std::filesystem::path(arguments.output),
      page);
  if (global.json) {
    print_json(global, compare_json(comparison));
  } else {
    print_text(page);
  }
}

}  // namespace

void add_compare_command(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* verb = app.add_subcommand(
      "compare", "Children of several recipes side by side, with intervals: ablations, baselines");
  verb->add_option("grid", arguments->grid, "File of the cells to compare")->required();
  verb->add_option("--run", arguments->run, "Folder of all cells; replaces the grid's");
  verb->add_option("--output", arguments->output,
                   "Where the Markdown page goes; compare.md in the folder of the cells");
  verb->add_option("--set", arguments->settings,
                   "Any option of the recipe for all cells, as name=value (repeatable)")
      ->allow_extra_args(false);
  verb->footer(grid_footer());
  verb->callback([arguments, &global, &selected] {
    selected.splits_over_ranks = true;
    selected.run = [arguments, &global] { compare(*arguments, global); };
  });
}

}  // namespace puzzle
