#include "puzzle/stages/measure.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/engine/cost_table_file.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/engine/width_costs.h"
#include "puzzle/results/facts.h"
#include "puzzle/results/machine.h"
#include "puzzle/stages/measure_engines.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

constexpr std::int64_t kMeasureVersion = 5;
constexpr const char* kNative = "native";
constexpr const char* kLlamaServer = "llama-server";
constexpr const char* kRoofline = "roofline";
constexpr const char* kTable = "table";

template <class Spec>
void add_distinct(std::vector<Spec>& all, const Spec& spec) {
  if (std::find(all.begin(), all.end(), spec) == all.end()) {
    all.push_back(spec);
  }
}

std::vector<std::int64_t> ffn_widths(const DistinctSubblocks& distinct) {
  std::vector<std::int64_t> widths;
  for (const FfnSpec& ffn : distinct.ffn) {
    if (ffn.kind == FfnKind::kSwiglu) {
      widths.push_back(ffn.width);
    }
  }
  return widths;
}

void add_types_to_key(KeyBuilder& key, const WeightTypes& types) {
  for (const DType type : {types.matrix, types.embedding, types.kv}) {
    key.add("type", dtype_name(type));
  }
}

// Only what changes the rows of the engine that is asked.
std::string measure_key(const RunContext& context, const LoadedModel& parent,
                        const SearchSpace& space, const Scenario& scenario,
                        const MeasureOptions& options, const TimedEngine& engine,
                        const std::string& engine_version) {
  KeyBuilder key;
  key.add("stage", "measure").add("version", kMeasureVersion).add("engine", options.engine);
  if (options.engine == kTable) {
    return key.add("table", hash_file(options.table)).key();
  }
  add_model_spec_to_key(key, parent.weights.spec);
  for (const AttentionSpec& attention : distinct_subblocks(space).attention) {
    key.add("attention", attention.name());
  }
  for (const FfnSpec& ffn : distinct_subblocks(space).ffn) {
    key.add("ffn", ffn.name());
  }
  for (const std::int64_t batch : scenario.batch) {
    key.add("batch", batch);
  }
  for (const std::int64_t tokens : measured_contexts(scenario, options)) {
    key.add("context", tokens);
  }
  if (options.engine == kRoofline) {
    add_types_to_key(key, deployed_types(options.types, scenario, parent.path));
    add_options_to_key(key, options.hardware);
    return key.key();
  }
  key.add("stack_layers", options.stack_layers).add("widths", options.widths);
  key.add("machine", to_json(read_machine()).dump());
  add_options_to_key(key, engine.timing);
  if (options.engine == kNative) {
    key.add("device", context.device.str()).add("type", c10::toString(context.type));
    key.add("threads", static_cast<std::int64_t>(at::get_num_threads()));
    return key.key();
  }
  add_types_to_key(key, deployed_types(options.types, scenario, parent.path));
  key.add("steps", options.steps).add("llama.cpp", engine_version);
  add_to_key(key, engine.llama_server);
  return key.key();
}

std::vector<MeasuredCost> roofline_rows(const LoadedModel& parent, const SearchSpace& space,
                                        const Scenario& scenario, const MeasureOptions& options) {
  const DistinctSubblocks distinct = distinct_subblocks(space);
  RooflineGrid grid{distinct.attention, distinct.ffn, {}};
  for (const std::int64_t batch : scenario.batch) {
    for (const std::int64_t tokens : measured_contexts(scenario, options)) {
      grid.queries.push_back({Phase::kPrefill, batch, tokens});
      grid.queries.push_back({Phase::kGenerate, batch, tokens});
    }
  }
  return roofline_costs(make_hardware(options.hardware), parent.weights.spec, grid,
                        deployed_types(options.types, scenario, parent.path));
}

std::vector<CostRow> as_cost_rows(const std::vector<MeasuredCost>& rows, const std::string& key,
                                  const std::string& engine) {
  std::vector<CostRow> result;
  for (const MeasuredCost& row : rows) {
    result.push_back({.key = key,
                      .engine = engine,
                      .subblock = row.subblock,
                      .phase = std::string(phase_name(row.phase)),
                      .batch = row.batch,
                      .context = row.context,
                      .seconds = row.seconds,
                      .p10_s = row.p10_s,
                      .p90_s = row.p90_s,
                      .samples = row.samples});
  }
  return result;
}

std::vector<MeasuredCost> as_measured(const std::vector<CostRow>& rows) {
  std::vector<MeasuredCost> result;
  for (const CostRow& row : rows) {
    result.push_back({row.subblock, parse_phase(row.phase, "run.db: costs"), row.batch, row.context,
                      row.seconds, row.p10_s, row.p90_s, row.samples});
  }
  return result;
}

StackCosts costs_of_engine(const RunContext& context, const LoadedModel& parent,
                           const SearchSpace& space, const Scenario& scenario,
                           const MeasureOptions& options, const TimedEngine& engine,
                           const std::string& key, const KeepStep& keep_step) {
  if (options.engine == kTable) {
    return {load_cost_table(options.table).rows, 0.0, {}};
  }
  if (options.engine == kRoofline) {
    return {roofline_rows(parent, space, scenario, options), 0.0, {}};
  }
  StackCosts costs =
      options.engine == kNative
          ? measure_native(parent, space, scenario, options, engine.timing, keep_step)
          : measure_llama_server(context, parent, space, scenario, options, engine, key, keep_step);
  interpolate_widths(costs.rows, ffn_widths(distinct_subblocks(space)));
  return costs;
}

// One by one when they are new; they are on record then.
void warn_of_doubts(const MeasureResult& result, bool is_new) {
  if (result.doubts.empty()) {
    return;
  }
  if (!is_new) {
    log_warning("measure: the times measured earlier are doubted in {} places (run.db)",
                result.doubts.size());
    return;
  }
  log_warning(
      "measure: {} comparisons of {} times in {} are doubtful; was the machine busy? Raise "
      "timing.samples and timing.max_rounds, or run measure again in another run folder:",
      result.doubts.size(), result.rows.size(), result.engine);
  constexpr std::size_t kMostShown = 12;
  for (std::size_t i = 0; i < std::min(kMostShown, result.doubts.size()); ++i) {
    log_warning("measure:   {}", result.doubts[i]);
  }
  if (result.doubts.size() > kMostShown) {
    log_warning("measure:   and {} more, in run.db's stage record",
                result.doubts.size() - kMostShown);
  }
}

// A scenario that needs contexts well outside the measured ones is a guess.
void warn_of_extrapolation(const MeasureResult& result, const SearchSpace& space,
                           const Scenario& scenario) {
  const DistinctSubblocks distinct = distinct_subblocks(space);
  Architecture all;  // every sub-block at least once
  for (std::size_t i = 0; i < std::max(distinct.attention.size(), distinct.ffn.size()); ++i) {
    all.push_back(
        {distinct.attention[i % distinct.attention.size()], distinct.ffn[i % distinct.ffn.size()]});
  }
  const CostModel costs(result.rows, "measured costs");
  for (const std::int64_t batch : scenario.batch) {
    const Prediction prediction =
        costs.predict(all, {batch, scenario.prompt_tokens, scenario.generated_tokens});
    if (!prediction.extrapolated.empty()) {
      log_warning(
          "measure: batch {}: {}; {} curves like this are extrapolated, name more "
          "measure.contexts",
          batch, prediction.extrapolated.front(), prediction.extrapolated.size());
    }
  }
}

void check_table(const std::string& path, const SearchSpace& space, const Scenario& scenario) {
  if (path.empty()) {
    fail(ErrorKind::kUsage,
         "measure.table is empty; name a file of times for measure.engine=table (docs/formats.md, "
         "puzzle-costs)");
  }
  const CostModel table(load_cost_table(path).rows, path);
  const DistinctSubblocks distinct = distinct_subblocks(space);
  std::vector<std::string> names = {std::string(kFixedSubblock)};
  for (const AttentionSpec& attention : distinct.attention) {
    names.push_back(subblock_name(attention));
  }
  for (const FfnSpec& ffn : distinct.ffn) {
    names.push_back(subblock_name(ffn));
  }
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    for (const std::int64_t batch : scenario.batch) {
      try {
        (void)table.workload_seconds(name,
                                     {batch, scenario.prompt_tokens, scenario.generated_tokens});
      } catch (const Error& error) {
        missing.emplace_back(error.what());
      }
    }
  }
  if (!missing.empty()) {
    fail(ErrorKind::kUsage, "measure.table: {}", join(missing, "; "));
  }
}

}  // namespace

const std::vector<std::string>& measure_engines() {
  static const std::vector<std::string> kEngines = {kNative, kLlamaServer, kRoofline, kTable};
  return kEngines;
}

void MeasureOptions::visit(OptionList& list) {
  list.add("engine", engine, Choices{measure_engines()},
           "What runs the sub-blocks: our own decoder, a real llama.cpp, a hardware description, "
           "or a table measured elsewhere.");
  list.add("types", types,
           "Weight types for llama-server and roofline: like-parent, f32, f16, bf16, q8_0, q5_0, "
           "q4_0, q4_1, q4_k or q6_k; fp8 for roofline.");
  list.add("stack_layers", stack_layers, Range<std::int64_t>{2, 1000},
           "Sub-blocks of one kind in a stack that is timed, so that fixed costs cancel.");
  list.add("steps", steps, Range<std::int64_t>{2, 1 << 20},
           "Tokens generated per measurement in llama-server; for scenarios a sixteenth of the "
           "longest prompt where that is more.");
  list.add("widths", widths, Range<std::int64_t>{2, 1 << 16},
           "FFN widths that are timed, the smallest and the largest among them; the times of those "
           "between are interpolated.");
  list.add("contexts", contexts, Range<std::int64_t>{1, 1 << 27},
           "Prompt lengths to measure at; empty takes the scenario's prompt, and prompt plus "
           "generation.");
  list.add("table", table, "Cost table to read where engine is table (docs/formats.md).");
  list.section("hardware", hardware);
}

DistinctSubblocks distinct_subblocks(const SearchSpace& space) {
  DistinctSubblocks distinct;
  for (const LayerSpace& layer : space.layers) {
    for (const AttentionSpec& attention : layer.attention) {
      add_distinct(distinct.attention, attention);
    }
    for (const FfnSpec& ffn : layer.ffn) {
      add_distinct(distinct.ffn, ffn);
    }
  }
  return distinct;
}

DistinctSubblocks timed_subblocks(const SearchSpace& space, const MeasureOptions& options) {
  DistinctSubblocks distinct = distinct_subblocks(space);
  const std::vector<std::int64_t> timed = spread_widths(ffn_widths(distinct), options.widths);
  std::erase_if(distinct.ffn, [&](const FfnSpec& ffn) {
    return ffn.kind == FfnKind::kSwiglu && std::ranges::find(timed, ffn.width) == timed.end();
  });
  return distinct;
}

std::vector<std::int64_t> measured_contexts(const Scenario& scenario,
                                            const MeasureOptions& options) {
  std::vector<std::int64_t> contexts = options.contexts;
  if (contexts.empty()) {
    contexts = {scenario.prompt_tokens, scenario.prompt_tokens + scenario.generated_tokens};
  }
  std::sort(contexts.begin(), contexts.end());
  contexts.erase(std::unique(contexts.begin(), contexts.end()), contexts.end());
  return contexts;
}

void check_measure(const MeasureOptions& options, const SearchSpace& space,
                   const Scenario& scenario, const std::filesystem::path& parent) {
  if (options.engine == kTable) {
    check_table(options.table, space, scenario);
  } else if (options.engine == kRoofline) {
    const WeightTypes types = deployed_types(options.types, scenario, parent);
    const Hardware hardware = make_hardware(options.hardware);
    for (const DType type : {types.matrix, types.embedding}) {
      (void)hardware.peak_flops_per_s(type);
    }
  } else if (options.engine == kLlamaServer && scenario.cache_type == "fp8") {
    fail(ErrorKind::kUsage,
         "scenario.cache_type: fp8, which llama.cpp does not have; use q8_0, or another "
         "measure.engine");
  }
}

MeasureResult measure(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                      const Scenario& scenario, const MeasureOptions& options,
                      const TimedEngine& engine, MeasureRole role) {
  const Stopwatch watch;
  MeasureResult result;
  result.engine = options.engine;

  // Measured seconds differ between processes: rank 0 measures, and searches with them.
  lead_alone(context.communicator, [&](const KeepStep& keep_step) {
    check_measure(options, space, scenario, parent.path);
    std::string version;
    if (options.engine == kLlamaServer) {
      version = find_llama_server_version(engine.llama_server);
      put_engine_version(context.db, version);
    }
    const std::string key = measure_key(context, parent, space, scenario, options, engine, version);
    const auto record = context.db.find_stage(key);
    if (record) {
      const Json detail = record_detail(context.db, *record);
      result.worst_residual = detail.value("worst_residual", 0.0);
      result.doubts = detail.value("doubts", std::vector<std::string>());
    } else {
      const StackCosts costs =
          costs_of_engine(context, parent, space, scenario, options, engine, key, keep_step);
      result.worst_residual = costs.worst_residual;
      result.doubts = costs.doubts;
      RunTransaction transaction(context.db);
      context.db.put(as_cost_rows(costs.rows, key, options.engine));
      context.db.put(
          {.key = key,
           .stage = "measure",
           .what = options.engine,
           .seconds = watch.seconds(),
           .detail_json =
               Json{{"worst_residual", costs.worst_residual}, {"doubts", costs.doubts}}.dump()});
      transaction.commit();
      remove_llama_server_passes(context, scenario, key);
    }
    result.rows = as_measured(context.db.costs_of(key));
    if (role == MeasureRole::kRun) {
      context.db.set_current(RunTable::kCosts, "measure", {key});
    }
    warn_of_doubts(result, !record);
    warn_of_extrapolation(result, space, scenario);
  });
  return result;
}

}  // namespace puzzle
