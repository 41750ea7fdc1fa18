#include "puzzle/app/compare.h"

#include <algorithm>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/app/pipeline.h"
#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/report/run_report.h"
#include "puzzle/results/run_db.h"
#include "puzzle/stages/evaluate.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other results.
constexpr std::int64_t kCompareVersion = 2;
constexpr const char* kCompareStage = "compare";

CompareCell parse_cell(const std::string& text) {
  const std::size_t colon = text.find(':');
  CompareCell cell{.name = std::string(trim(std::string_view(text).substr(0, colon))),
                   .settings = {}};
  for (const std::string& part :
       split(colon == std::string::npos ? "" : text.substr(colon + 1), ';')) {
    if (const std::string_view setting = trim(part); !setting.empty()) {
      cell.settings.emplace_back(setting);
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
  if (!names.contains(grid.options.reference)) {
    fail(ErrorKind::kUsage, "{}: reference: '{}' is none of the cells", file,
         grid.options.reference);
  }
}

// What the cell is, and what evaluate found.
ComparedCell describe(Pipeline& pipeline, const CompareCell& cell) {
  const ModelSpec& parent = pipeline.parent().weights.spec;
  const FoundArchitecture& chosen = pipeline.chosen();
  ComparedCell result{.name = cell.name, .settings = join(cell.settings, "; ")};
  result.budget = chosen.budget;
  result.predicted = chosen.objective;
  const auto parameters = [](const ModelSpec& spec) {
    return static_cast<double>(model_cost(spec, ExportTarget::kNative, WeightTypes{}).parameters);
  };
  result.parameters = parameters(with_layers(parent, chosen.layers)) / parameters(parent);
  const RunDb& db = pipeline.context().db;
  UnitSums units = heldout_kl_units(db, cell.name);
  result.kl_sums = std::move(units.numerators);
  result.unit_tokens = std::move(units.denominators);
  for (const EvaluationRow& row : db.evaluations()) {
    if (row.model == cell.name) {
      result.metrics[row.task + "/" + row.metric] = row.value;
    }
  }
  return result;
}

// What making the child took: of the run that made it, not of one that found it done.
double seconds_of(RunDb& db, const CompareCell& cell, const std::string& child_key,
                  double seconds) {
  KeyBuilder key;
  key.add("stage", kCompareStage).add("version", kCompareVersion);
  key.add("cell", cell.name).add("child", child_key);
  if (!db.has_stage(key.key())) {
    const Json detail = {{"seconds", seconds}};
    db.put(StageRecord{.key = key.key(),
                       .stage = kCompareStage,
                       .what = cell.name,
                       .seconds = 0.0,  // the stages have records of their own
                       .detail_json = detail.dump()});
  }
  return json_double(parse_json(db.find_stage(key.key())->detail_json, "run.db: compare"),
                     "seconds", "run.db: compare");
}

ComparedCell make_cell(const CompareGrid& grid, const CompareCell& cell, Communicator& communicator,
                       const std::string& command) {
  const Stopwatch watch;
  Pipeline pipeline(cell_recipe(grid, cell), communicator, command, cell.name);
  pipeline.run_until("evaluate");
  if (!communicator.is_first()) {
    return {};
  }
  RunDb& db = pipeline.context().db;
  ComparedCell result = describe(pipeline, cell);
  result.seconds = seconds_of(db, cell, pipeline.child_key(), watch.seconds());
  return result;
}

// What there is so far, once the reference is.
void record(const CompareGrid& grid, const Comparison& comparison) {
  const std::filesystem::path folder = grid.options.run;
  if (comparison.find_reference() == nullptr || !std::filesystem::exists(folder / "run.db")) {
    return;
  }
  RunDb db(folder / "run.db");
  put_comparison(db, comparison);
  write_report(db, folder / "report.html");
}

}  // namespace

void CompareOptions::visit(OptionList& list) {
  list.add("recipe", recipe, "Recipe that all cells start from; relative to this file.");
  list.add("run", run, "Folder in which all cells run.");
  list.add("reference", reference, "Cell that the others are compared with; empty: the first.");
  list.add("set", set, "Settings of all cells, name=value.");
  list.add("cells", cells, "What is compared: \"name\" or \"name: setting; setting\".");
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
      list.set_assignment(setting);
    }
  }
  return recipe;
}

Comparison run_compare(const CompareGrid& grid, Communicator& communicator,
                       const std::string& command) {
  Comparison comparison{grid.options.reference, {}};
  for (const CompareCell& cell : grid.cells) {
    (void)cell_recipe(grid, cell);  // a mistake in the last cell shows before the first one runs
  }
  for (const CompareCell& cell : grid.cells) {
    log_info("compare: {}", cell.name);
    try {
      comparison.cells.push_back(make_cell(grid, cell, communicator, command));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) {
        fail_with(error.kind(), fmt::format("cell {}: {}", cell.name, error.what()));
      }
      log_warning("compare: {}: {}", cell.name, error.what());
      comparison.cells.push_back({.name = cell.name, .settings = join(cell.settings, "; ")});
    }
    if (communicator.is_first()) {
      record(grid, comparison);
    }
  }
  return comparison;
}

}  // namespace puzzle
