// compare: several recipes side by side.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/compare.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

struct CompareArguments {
  std::vector<std::string> grids;
  std::string run;
  std::string output;
  std::vector<std::string> settings;
  bool recorded = false;
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

std::vector<ComparedGrid> load_grids(const CompareArguments& arguments) {
  std::vector<ComparedGrid> grids;
  for (const std::string& file : arguments.grids) {
    CompareGrid grid = load_compare_grid(file);
    if (!arguments.run.empty()) {
      grid.options.run = arguments.run;
      grid.is_command_run = true;
    }
    grid.options.set.insert(grid.options.set.end(), arguments.settings.begin(),
                            arguments.settings.end());
    grid.num_command_settings = arguments.settings.size();
    const auto same = std::ranges::find(
        grids, grid.page_name(), [](const ComparedGrid& each) { return each.grid.page_name(); });
    if (same != grids.end()) {
      fail(ErrorKind::kUsage,
           "{} and {} are of one name, which their parts of the page would share",
           same->grid.file.string(), file);
    }
    grids.push_back({std::move(grid), {}});
  }
  return grids;
}

std::filesystem::path page_file(const CompareArguments& arguments,
                                const std::vector<ComparedGrid>& grids) {
  return arguments.output.empty()
             ? std::filesystem::path(grids.front().grid.options.run) / "compare.md"
             : std::filesystem::path(arguments.output);
}

// The page as it was, or nothing where it is still to be made.
std::string earlier_page(const std::filesystem::path& file) {
  const std::string earlier = std::filesystem::exists(file) ? read_text_file(file) : "";
  if (!is_compare_page(earlier)) {
    fail(ErrorKind::kUsage, "--output {}: is no page of `puzzle compare`, and would be overwritten",
         file.string());
  }
  return earlier;
}

void make_page_folder(const std::filesystem::path& file) {
  make_folder(file.has_parent_path() ? file.parent_path() : ".");
}

void check_recorded(const std::vector<ComparedGrid>& grids) {
  const bool is_empty = std::ranges::all_of(
      grids, [](const ComparedGrid& each) { return each.comparison.cells.empty(); });
  if (is_empty) {
    fail(ErrorKind::kIo,
         "{}: expected cells of {} recorded by `puzzle compare` with these recipes; run it first",
         (std::filesystem::path(grids.front().grid.options.run) / "run.db").string(),
         grids.front().grid.file.string());
  }
}

void show(const std::filesystem::path& file, const std::vector<ComparedGrid>& grids,
          GlobalOptions& global) {
  const std::string page = compare_page(grids, earlier_page(file));
  make_page_folder(file);
  write_text_file(file, page);
  if (global.json) {
    print_json(global, compare_json(grids));
  } else {
    print_text(page);
  }
}

void compare(const CompareArguments& arguments, GlobalOptions& global) {
  std::vector<ComparedGrid> grids = load_grids(arguments);
  const std::filesystem::path file = page_file(arguments, grids);
  // What is wrong with the page or with any grid shows before the first one runs.
  (void)earlier_page(file);
  if (!arguments.recorded) {
    for (const ComparedGrid& each : grids) {
      check_cell_recipes(each.grid);
    }
    make_page_folder(file);
  }
  const CompareGrid& first = grids.front().grid;
  const std::unique_ptr<Communicator> communicator =
      make_communicator(cell_recipe(first, first.cells.front()).communicator);
  for (ComparedGrid& each : grids) {
    each.comparison = arguments.recorded ? recorded_compare(each.grid)
                                         : run_compare(each.grid, *communicator, global.command);
  }
  if (arguments.recorded) {
    check_recorded(grids);
  }
  if (communicator->is_first()) {
    show(file, grids, global);
  }
}

}  // namespace

void add_compare_command(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* verb = app.add_subcommand(
      "compare", "Children of several recipes side by side, with intervals: ablations, baselines");
  verb->add_option("grids", arguments->grids,
                   "Files of the cells to compare, a part of the page each")
      ->required();
  refuse_empty(
      *verb->add_option("--run", arguments->run, "Folder of all cells; replaces the grids'"),
      "a folder");
  refuse_empty(
      *verb->add_option(
          "--output", arguments->output,
          "Where the Markdown page goes; compare.md in the folder of the first grid's cells. What "
          "it says of other grids stays"),
      "a file");
  verb->add_option("--set", arguments->settings,
                   "Any option of the recipe for all cells, as name=value (repeatable)")
      ->allow_extra_args(false);
  verb->add_flag("--recorded", arguments->recorded,
                 "Write the page from what is recorded and run nothing");
  verb->footer(grid_footer());
  verb->callback([arguments, &global, &selected] {
    selected.splits_over_ranks = true;
    selected.run = [arguments, &global] { compare(*arguments, global); };
  });
}

}  // namespace puzzle
