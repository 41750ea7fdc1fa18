#include "puzzle/app/compare.h"

#include <algorithm>
#include <set>
#include <utility>

#include "puzzle/app/compare_cell.h"
#include "puzzle/app/validate.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

constexpr std::string_view kVersus = " vs ";
constexpr std::string_view kCompressSection = "compress";

bool is_compress_setting(const std::string& setting) {
  return setting.starts_with(std::string(kCompressSection) + ".");
}

CompareCell parse_cell(const std::string& text) {
  const std::size_t colon = text.find(':');
  CompareCell cell;
  cell.name = trim(std::string_view(text).substr(0, colon));
  if (const std::size_t versus = cell.name.find(kVersus); versus != std::string::npos) {
    cell.reference = trim(std::string_view(cell.name).substr(versus + kVersus.size()));
    cell.name = trim(std::string_view(cell.name).substr(0, versus));
  }
  for (const std::string& part :
       split(colon == std::string::npos ? "" : text.substr(colon + 1), ';')) {
    if (const std::string_view setting = trim(part); !setting.empty()) {
      cell.settings.emplace_back(setting);
    }
  }
  OptionList list;
  list.section(kCompressSection, cell.compress);
  for (const std::string& setting : cell.settings) {
    if (is_compress_setting(setting)) {
      list.set_assignment(setting);
    }
  }
  return cell;
}

bool is_plain_name(const std::string& name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  return !name.empty() && name.front() != '.' &&
         name.find_first_not_of(kAllowed) == std::string::npos;
}

void check_cells(const CompareGrid& grid) {
  const std::string file = grid.file.string();
  if (grid.options.recipe.empty() || grid.cells.empty()) {
    fail(ErrorKind::kUsage, "{}: expected recipe, a file to start from, and cells to compare",
         file);
  }
  std::set<std::string> names;
  for (const CompareCell& cell : grid.cells) {
    if (!is_plain_name(cell.name)) {
      fail(
          ErrorKind::kUsage,
          "{}: cells: '{}' is no name; expected \"name: setting; setting\" with a name of letters, "
          "digits, '-', '_' and '.'",
          file, cell.name);
    }
    if (!names.insert(cell.name).second) {
      fail(ErrorKind::kUsage, "{}: cells: '{}' stands twice", file, cell.name);
    }
  }
  for (const CompareCell& cell : grid.cells) {
    for (const std::string& setting : cell.settings) {
      if (setting.starts_with("communicator.")) {
        fail(ErrorKind::kUsage, "{}: cell {}: {} is of the whole command; give it in set", file,
             cell.name, setting);
      }
    }
  }
  const auto check_reference = [&](const std::string& reference) {
    if (!names.contains(reference)) {
      fail(ErrorKind::kUsage, "{}: reference: '{}' is none of the cells", file, reference);
    }
  };
  check_reference(grid.options.reference);
  for (const CompareCell& cell : grid.cells) {
    if (!cell.reference.empty()) {
      check_reference(cell.reference);
    }
  }
}

// A grid with other settings for all its cells is another comparison.
std::string comparison_name(const CompareGrid& grid) {
  std::string name = grid.file.stem().string();
  if (!grid.options.set.empty()) {
    KeyBuilder key;
    name += "-" + key.add("set", join(grid.options.set, "; ")).key().substr(0, 8);
  }
  return name;
}

Comparison head_of(const CompareGrid& grid) {
  return {.name = comparison_name(grid),
          .title = grid.options.title,
          .about = grid.options.about,
          .settings = join(grid.options.set, "; "),
          .reference = grid.options.reference,
          .cells = {}};
}

std::filesystem::path database_of(const CompareGrid& grid) {
  return std::filesystem::path(grid.options.run) / "run.db";
}

const ComparedCell* find_key(const std::vector<ComparedCell>& cells, const std::string& key) {
  const auto found = std::ranges::find(cells, key, &ComparedCell::key);
  return found == cells.end() ? nullptr : &*found;
}

// What there is so far; of cells that are still to come, what an earlier run left.
void record(const CompareGrid& grid, const Comparison& made, const Comparison& earlier) {
  const std::filesystem::path file = database_of(grid);
  if (!std::filesystem::exists(file)) {
    return;
  }
  Comparison comparison = made;
  for (const ComparedCell& cell : earlier.cells) {
    if (find_key(made.cells, cell.key) == nullptr) {
      comparison.cells.push_back(cell);
    }
  }
  RunDb db(file);
  put_comparison(db, comparison);
  write_report(db, file.parent_path() / "report.html");
}

[[noreturn]] void fail_in_cell(const CompareGrid& grid, const CompareCell& cell,
                               const Error& error) {
  fail_with(error.kind(),
            fmt::format("{}: cell {}: {}", grid.file.string(), cell.name, error.what()));
}

}  // namespace

void CompareOptions::visit(OptionList& list) {
  list.add("recipe", recipe, "Recipe that all cells start from; relative to this file.");
  list.add("run", run, "Folder in which all cells run.");
  list.add("title", title, "Heading of its part of the page; empty: the file's name.");
  list.add("about", about, "What is compared, for the page.");
  list.add("reference", reference,
           "Cell that those without \"vs\" are compared with; empty: the first.");
  list.add("set", set, "Settings of all cells, name=value.");
  list.add("cells", cells,
           "What is compared: \"name\", \"name: setting; setting\" or \"name vs other: ...\".");
}

CompareGrid load_compare_grid(const std::filesystem::path& file) {
  CompareGrid grid;
  grid.file = file;
  OptionList list;
  grid.options.visit(list);
  list.load_yaml(file);
  for (const std::string& text : grid.options.cells) {
    grid.cells.push_back(parse_cell(text));
  }
  if (grid.options.reference.empty() && !grid.cells.empty()) {
    grid.options.reference = grid.cells.front().name;
  }
  if (grid.options.title.empty()) {
    grid.options.title = file.stem().string();
  }
  check_cells(grid);
  return grid;
}

Recipe cell_recipe(const CompareGrid& grid, const CompareCell& cell) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  list.load_yaml(grid.file.parent_path() / grid.options.recipe);
  recipe.compare.clear();  // cells are what is compared
  recipe.run = grid.options.run;
  for (const std::vector<std::string>* settings : {&grid.options.set, &cell.settings}) {
    for (const std::string& setting : *settings) {
      if (setting.starts_with("run=")) {
        fail(ErrorKind::kUsage, "{}: {}: the folder of all cells is the grid's `run`, or --run",
             grid.file.string(), setting);
      }
      if (settings != &cell.settings || !is_compress_setting(setting)) {
        list.set_assignment(setting);
      }
    }
  }
  return recipe;
}

void check_cell_recipes(const CompareGrid& grid) {
  for (const CompareCell& cell : grid.cells) {
    try {
      const Recipe recipe = cell_recipe(grid, cell);
      validate(recipe, load_model_spec(recipe.model), UselessSettings::kLetPass);
      if (cell.compress.method == "none") {
        check_programs(recipe, "evaluate");
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) {
        fail_in_cell(grid, cell, error);
      }
    }
  }
}

Comparison run_compare(const CompareGrid& grid, Communicator& communicator,
                       const std::string& command) {
  Comparison comparison = head_of(grid);
  const Comparison earlier = communicator.is_first() ? recorded_compare(grid) : Comparison{};
  for (const CompareCell& cell : grid.cells) {
    log_info("compare: {}", cell.name);
    const Recipe recipe = cell_recipe(grid, cell);
    try {
      comparison.cells.push_back(make_cell(recipe, cell, communicator, command));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) {
        fail_in_cell(grid, cell, error);
      }
      log_warning("compare: {}: {}", cell.name, error.what());
      comparison.cells.push_back(cell_head(recipe, cell));
    }
    if (communicator.is_first()) {
      record(grid, comparison, earlier);
    }
  }
  return comparison;
}

Comparison recorded_compare(const CompareGrid& grid) {
  Comparison comparison = head_of(grid);
  const std::filesystem::path file = database_of(grid);
  if (!std::filesystem::exists(file)) {
    return comparison;
  }
  const std::vector<Comparison> all = load_comparisons(RunDb(file, RunDbMode::kRead));
  const auto recorded = std::ranges::find(all, comparison.name, &Comparison::name);
  if (recorded == all.end()) {
    return comparison;
  }
  for (const CompareCell& cell : grid.cells) {
    const ComparedCell head = cell_head(cell_recipe(grid, cell), cell);
    if (const ComparedCell* found = find_key(recorded->cells, head.key)) {
      comparison.cells.push_back(*found);
      comparison.cells.back().name = head.name;
      comparison.cells.back().reference = head.reference;
      comparison.cells.back().settings = head.settings;
    }
  }
  return comparison;
}

}  // namespace puzzle
