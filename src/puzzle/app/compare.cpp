#include "puzzle/app/compare.h"

#include <algorithm>
#include <set>
#include <utility>

#include "puzzle/app/compare_cell.h"
#include "puzzle/app/pipeline.h"
#include "puzzle/app/validate.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

constexpr std::string_view kVersus = " vs ";
constexpr std::string_view kCompressSection = "compress";

bool is_compress_setting(const std::string& setting) {
  return setting.starts_with(std::string(kCompressSection) + ".");
}

std::string cell_place(const std::filesystem::path& file, const std::string& cell) {
  return fmt::format("{}: cell {}", file.string(), cell);
}

CompareCell parse_cell(const std::string& text, const std::filesystem::path& file) {
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
      list.set_assignment(setting, cell_place(file, cell.name));
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
    if (cell.name == kParentModel) {
      fail(ErrorKind::kUsage,
           "{}: cells: 'parent' is what every cell is compared with; call it something else", file);
    }
    if (!names.insert(cell.name).second) {
      fail(ErrorKind::kUsage, "{}: cells: '{}' stands twice", file, cell.name);
    }
  }
  for (const CompareCell& cell : grid.cells) {
    for (const std::string& setting : cell.settings) {
      if (setting.starts_with("communicator.")) {
        fail(ErrorKind::kUsage, "{}: {} is of the whole command; give it in set",
             cell_place(grid.file, cell.name), setting);
      }
    }
  }
  const auto check_reference = [&](const std::string& place, const std::string& reference) {
    if (!names.contains(reference)) {
      fail(ErrorKind::kUsage, "{}: '{}' is none of the cells", place, reference);
    }
  };
  check_reference(file + ": reference", grid.options.reference);
  for (const CompareCell& cell : grid.cells) {
    if (!cell.reference.empty()) {
      check_reference(cell_place(grid.file, cell.name) + ": vs", cell.reference);
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

// Cells that no child satisfies are of no text.
bool is_of_text_of(const ComparedCell& cell, const std::vector<ComparedCell>& others) {
  return cell.text.empty() || std::ranges::all_of(others, [&](const ComparedCell& other) {
           return other.text.empty() || other.text == cell.text;
         });
}

// What there is so far; of cells that are still to come, what an earlier run left, unless the files
// behind the recipe's paths hold something else now.
void record(const CompareGrid& grid, const Comparison& made, const Comparison& earlier) {
  const std::filesystem::path file = database_of(grid);
  if (!std::filesystem::exists(file)) {
    return;
  }
  Comparison comparison = made;
  for (const ComparedCell& cell : earlier.cells) {
    if (find_key(made.cells, cell.key) == nullptr && is_of_text_of(cell, made.cells)) {
      comparison.cells.push_back(cell);
    }
  }
  RunDb db(file);
  put_comparison(db, comparison);
  write_report(db, file.parent_path() / "report.html");
}

[[noreturn]] void fail_in_cell(const CompareGrid& grid, const CompareCell& cell,
                               const Error& error) {
  fail_with(error.kind(), fmt::format("{}: {}", cell_place(grid.file, cell.name), error.what()));
}

bool is_recipe(const std::filesystem::path& file) {
  Recipe recipe;
  OptionList list;
  recipe.visit(list);
  try {
    list.load_yaml(file);
  } catch (const Error&) {
    return false;
  }
  return true;
}

void load_grid_options(const std::filesystem::path& file, CompareOptions& options) {
  OptionList list("`puzzle compare --help` shows what a grid holds");
  options.visit(list);
  try {
    list.load_yaml(file);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kUsage && is_recipe(file)) {
      fail(ErrorKind::kUsage,
           "{}: is a recipe, expected a grid, with recipe and cells; see `puzzle compare --help`",
           file.string());
    }
    throw;
  }
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
  load_grid_options(file, grid.options);
  for (const std::string& text : grid.options.cells) {
    grid.cells.push_back(parse_cell(text, file));
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
  const auto apply = [&list](const std::string& setting, const std::string& place) {
    if (trim(std::string_view(setting).substr(0, setting.find('='))) == "run") {
      fail(ErrorKind::kUsage, "{}: {}: the folder of all cells is the grid's `run`, or --run",
           place, setting);
    }
    list.set_assignment(setting, place);
  };
  const std::vector<std::string>& common = grid.options.set;
  for (std::size_t i = 0; i < common.size(); ++i) {
    const bool is_of_file = i + grid.num_command_settings < common.size();
    apply(common[i], is_of_file ? grid.file.string() + ": set" : "--set");
  }
  for (const std::string& setting : cell.settings) {
    if (!is_compress_setting(setting)) {
      apply(setting, cell_place(grid.file, cell.name));
    }
  }
  return recipe;
}

void check_cell_recipes(const CompareGrid& grid) {
  for (const CompareCell& cell : grid.cells) {
    const Recipe recipe = cell_recipe(grid, cell);  // its errors say where
    try {
      (void)load_validated_parent(recipe, UselessSettings::kLetPass);
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
  if (const std::filesystem::path file = database_of(grid);
      communicator.is_first() && std::filesystem::exists(file)) {
    RunDb db(file);
    Pipeline::record_finished(db);
  }
  return comparison;
}

Comparison recorded_compare(const CompareGrid& grid) {
  std::vector<ComparedCell> heads;  // before anything else, so that every mistake shows
  heads.reserve(grid.cells.size());
  for (const CompareCell& cell : grid.cells) {
    heads.push_back(cell_head(cell_recipe(grid, cell), cell));
  }
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
  for (const ComparedCell& head : heads) {
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
