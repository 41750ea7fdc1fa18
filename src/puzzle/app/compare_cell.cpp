#include "puzzle/app/compare_cell.h"

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/pipeline.h"
#include "puzzle/app/version.h"
#include "puzzle/arch/cost.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/machine.h"
#include "puzzle/results/run_db.h"
#include "puzzle/stages/evaluate.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other results.
constexpr std::int64_t kCompareVersion = 2;
constexpr const char* kCompareStage = "compare";

// A child and what is known of it before it is evaluated.
struct CellChild {
  std::string key;
  std::filesystem::path folder;
  double parameters = 0.0;  // as a fraction of the parent's
  std::map<std::string, double> used{};
  std::string budget{};
  std::optional<double> predicted{};
};

std::string this_maker() {
  return fmt::format("puzzle {}, {}, {}", kPuzzleVersion, build_description(), read_machine().cpu);
}

double as_fraction(double parameters, const ModelSpec& parent) {
  return parameters / static_cast<double>(num_parameters(parent));
}

CellChild searched_child(Pipeline& pipeline) {
  pipeline.run_until("evaluate");
  const FoundArchitecture& chosen = pipeline.chosen();
  const ModelSpec& parent = pipeline.parent().weights.spec;
  std::map<std::string, double> used;
  for (const BudgetOutcome& outcome : pipeline.outcomes()) {
    used[outcome.cost] = outcome.predicted_ratio;
  }
  const auto parameters = static_cast<double>(num_parameters(with_layers(parent, chosen.layers)));
  return {.key = pipeline.child_key(),
          .folder = pipeline.child_folder(),
          .parameters = as_fraction(parameters, parent),
          .used = std::move(used),
          .budget = chosen.budget,
          .predicted = chosen.objective};
}

CellChild compressed_child(Pipeline& pipeline, const CompareCell& cell,
                           const EvaluateOptions& options) {
  RunContext& context = pipeline.context();
  const LoadedModel& parent = pipeline.parent();
  const TokenPart& calibration = pipeline.parts().calibration;
  KeyBuilder content;  // cells of one name in one folder may be of other grids or settings
  content.add("calibration", calibration.content_key());
  add_options_to_key(content, cell.compress);
  const std::string folder =
      fmt::format("{}-{}", cell.name, content.key().substr(0, Pipeline::kFolderKeyLength));
  const CompressResult compressed = with_place("compress", [&] {
    return compress_parent(context, parent, folder, calibration, cell.compress);
  });
  ModelWeights weights = load_model(compressed.folder, context.type);
  move_to(weights, context.device, context.type);
  (void)evaluate(context, parent, {{cell.name, compressed.key, &weights}}, pipeline.parts().test,
                 options);
  return {.key = compressed.key,
          .folder = compressed.folder,
          .parameters = as_fraction(compressed.parameters, parent.weights.spec)};
}

void add_evaluation(const RunDb& db, ComparedCell& cell) {
  UnitSums units = heldout_kl_units(db, cell.name);
  cell.kl_sums = std::move(units.numerators);
  cell.unit_tokens = std::move(units.denominators);
  for (const EvaluationRow& row : db.evaluations()) {
    if (row.model == cell.name) {
      cell.metrics[row.task + "/" + row.metric] = row.value;
    } else if (row.model == kParentModel) {
      cell.parent_metrics[row.task + "/" + row.metric] = row.value;
    }
  }
}

// What making the child took, and who did: of the run that made it, not of one that found it done.
void add_making(RunDb& db, const std::string& child_key, double seconds, ComparedCell& cell) {
  KeyBuilder key;
  key.add("stage", kCompareStage).add("version", kCompareVersion);
  key.add("cell", cell.name).add("child", child_key);
  if (!db.has_stage(key.key())) {
    db.put(
        StageRecord{.key = key.key(),
                    .stage = kCompareStage,
                    .what = cell.name,
                    .seconds = 0.0,  // the stages have records of their own
                    .detail_json = Json{{"seconds", seconds}, {"made_by", this_maker()}}.dump()});
  }
  const Json making = record_detail(db, *db.find_stage(key.key()));
  const std::string place = db.path().string();
  cell.seconds = json_double(making, "seconds", place);
  cell.made_by = json_string(making, "made_by", place, "");  // earlier versions recorded none
}

}  // namespace

ComparedCell cell_head(const Recipe& recipe, const CompareCell& cell) {
  KeyBuilder key;
  key.add("stage", kCompareStage);
  Recipe resolved = recipe;
  resolved.run.clear();  // where it lies does not matter
  add_options_to_key(key, resolved);
  add_options_to_key(key, cell.compress);
  return {.name = cell.name,
          .reference = cell.reference,
          .settings = join(cell.settings, "; "),
          .key = key.key()};
}

ComparedCell make_cell(const Recipe& recipe, const CompareCell& cell, Communicator& communicator,
                       const std::string& command) {
  const Stopwatch watch;
  Pipeline pipeline(recipe, communicator, command, cell.name);
  const bool is_searched = cell.compress.method == "none";
  const CellChild child =
      is_searched ? searched_child(pipeline) : compressed_child(pipeline, cell, recipe.evaluate);
  if (!communicator.is_first()) {
    return {};
  }
  RunDb& db = pipeline.context().db;
  ComparedCell result = cell_head(recipe, cell);
  result.budget = child.budget;
  result.predicted = child.predicted;
  result.parameters = child.parameters;
  result.used = child.used;
  result.text = KeyBuilder()
                    .add("parent", pipeline.parent().key)
                    .add("test", pipeline.parts().test.content_key())
                    .key();
  result.folder = child.folder.lexically_relative(recipe.run).string();
  add_evaluation(db, result);
  add_making(db, child.key, watch.seconds(), result);
  return result;
}

}  // namespace puzzle
