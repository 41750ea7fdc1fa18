#include "puzzle/stages/measure.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/engine/cost_table_file.h"
#include "puzzle/results/machine.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

constexpr std::int64_t kMeasureVersion = 1;

template <class Spec>
void add_distinct(std::vector<Spec>& all, const Spec& spec) {
  if (std::find(all.begin(), all.end(), spec) == all.end()) {
    all.push_back(spec);
  }
}

std::string measure_key(const RunContext& context, const LoadedModel& parent,
                        const SearchSpace& space, const Scenario& scenario,
                        const MeasureOptions& options) {
  KeyBuilder key;
  key.add("stage", "measure").add("version", kMeasureVersion);
  add_model_spec_to_key(key, parent.weights.spec);
  for (const AttentionSpec& attention : distinct_subblocks(space).attention) {
    key.add("attention", attention.name());
  }
  for (const FfnSpec& ffn : distinct_subblocks(space).ffn) {
    key.add("ffn", ffn.name());
  }
  add_options_to_key(key, scenario);
  add_options_to_key(key, options);
  if (options.engine == "table") {
    key.add("table", hash_file(options.table));
  }
  if (options.engine == "native" || options.engine == "llama-server") {
    key.add("machine", to_json(read_machine()).dump()).add("device", context.device.str());
  }
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
                        gguf_weight_types(options.types, parent.path));
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

}  // namespace

void MeasureOptions::visit(OptionList& list) {
  list.add("engine", engine, Choices{{"native", "llama-server", "roofline", "table"}},
           "What runs the sub-blocks: our own decoder, a real llama.cpp, a hardware description, "
           "or a table "
           "measured elsewhere.");
  list.add("types", types,
           "Weight types for llama-server and roofline: like-parent, f32, f16, bf16, q8_0, q4_0 or "
           "q4_1.");
  list.add("stack_layers", stack_layers, Range<std::int64_t>{2, 1000},
           "Layers of one kind in a measured model, so that fixed costs cancel.");
  list.add("steps", steps, Range<std::int64_t>{2, 1 << 20}, "Tokens generated per measurement.");
  list.add("contexts", contexts, Range<std::int64_t>{1, 1 << 27},
           "Prompt lengths to measure at; empty takes the scenario's prompt, and prompt plus "
           "generation.");
  list.add("table", table, "Cost table to read where engine is table (docs/formats.md).");
  list.section("timing", timing);
  list.section("llama_server", llama_server);
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

MeasureResult measure(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                      const Scenario& scenario, const MeasureOptions& options) {
  const Stopwatch watch;
  MeasureResult result;
  result.key = measure_key(context, parent, space, scenario, options);
  result.engine = options.engine;

  // Measured seconds differ between processes: rank 0's count for all.
  if (context.communicator.is_first()) {
    if (!context.db.has_stage(result.key)) {
      std::string detail = "{}";
      if (options.engine == "table") {
        result.rows = load_cost_table(options.table).rows;
      } else if (options.engine == "roofline") {
        result.rows = roofline_rows(parent, space, scenario, options);
      } else if (options.engine == "native") {
        result.rows = measure_native(parent, space, scenario, options);
      } else {
        LlamaServerCosts costs = measure_llama_server(context, parent, space, scenario, options);
        result.rows = std::move(costs.rows);
        result.worst_residual = costs.worst_residual;
        detail = Json{{"worst_residual", costs.worst_residual}}.dump();
      }
      RunTransaction transaction(context.db);
      context.db.put(as_cost_rows(result.rows, result.key, options.engine));
      context.db.put({.key = result.key,
                      .stage = "measure",
                      .what = options.engine,
                      .seconds = watch.seconds(),
                      .detail_json = detail});
      transaction.commit();
    }
    result.rows = as_measured(context.db.costs_of(result.key));
    context.db.set_current(RunTable::kCosts, "measure", {result.key});
  }
  context.communicator.barrier();
  return result;
}

}  // namespace puzzle
