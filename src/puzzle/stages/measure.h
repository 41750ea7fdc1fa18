// Stage `measure`: what each sub-block of the search space costs in seconds, in the engine that
// will run the child (DESIGN 6).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/llama_server_options.h"
#include "puzzle/engine/measured_cost.h"
#include "puzzle/engine/roofline.h"
#include "puzzle/engine/timing.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct MeasureOptions {
  std::string engine = "native";  // native | llama-server | roofline | table
  std::string types =
      "like-parent";               // of the weights that llama-server runs; see gguf_weight_types()
  std::int64_t stack_layers = 10;  // layers of one kind in a measured model
  std::int64_t steps = 32;         // generated per measurement
  std::vector<std::int64_t> contexts;  // prompt lengths; empty: P and P + G of the scenario
  std::string table;                   // engine = table: a file of cost_table_file.h
  TimingPolicy timing;
  LlamaServerOptions llama_server;
  HardwareOptions hardware;  // engine = roofline

  void visit(OptionList& list);
};

struct MeasureResult {
  std::string key;  // of the rows, also in run.db
  std::string engine;
  std::vector<MeasuredCost> rows;
  double worst_residual = 0.0;  // llama-server: |predicted − measured| / measured of a stack
};

// Times every distinct sub-block and the fixed rest for each batch size and context length, and
// records CostRows. Finished stacks are not timed again by a resumed run. Throws Error(kUsage) for
// a table that lacks a sub-block, Error(kIo) where the engine cannot be started.
MeasureResult measure(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                      const Scenario& scenario, const MeasureOptions& options);

// Distinct sub-blocks of a space, the parent's first.
struct DistinctSubblocks {
  std::vector<AttentionSpec> attention;
  std::vector<FfnSpec> ffn;
};
[[nodiscard]] DistinctSubblocks distinct_subblocks(const SearchSpace& space);

// Prompt lengths to measure at, ascending.
[[nodiscard]] std::vector<std::int64_t> measured_contexts(const Scenario& scenario,
                                                          const MeasureOptions& options);

// The engines that run something; used by measure().
[[nodiscard]] std::vector<MeasuredCost> measure_native(const LoadedModel& parent,
                                                       const SearchSpace& space,
                                                       const Scenario& scenario,
                                                       const MeasureOptions& options);
struct LlamaServerCosts {
  std::vector<MeasuredCost> rows;
  double worst_residual = 0.0;
};
[[nodiscard]] LlamaServerCosts measure_llama_server(RunContext& context, const LoadedModel& parent,
                                                    const SearchSpace& space,
                                                    const Scenario& scenario,
                                                    const MeasureOptions& options);

}  // namespace puzzle
