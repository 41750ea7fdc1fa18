// Stage `measure`: what each sub-block of the search space costs in seconds, in the engine that
// will run the child.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/measured_cost.h"
#include "puzzle/engine/roofline.h"
#include "puzzle/engine/timed_engine.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

// What can run the sub-blocks: our own decoder, a real llama.cpp, a hardware description, or a
// table measured elsewhere.
[[nodiscard]] const std::vector<std::string>& measure_engines();

struct MeasureOptions {
  std::string engine = "native";  // one of measure_engines()
  std::string types =
      "like-parent";  // of the weights in llama-server and roofline; see deployed_types()
  std::int64_t stack_layers = 10;      // sub-blocks of one kind in a stack
  std::int64_t steps = 32;             // generated per measurement in llama-server
  std::int64_t widths = 6;             // FFN widths that are timed; those between lie on lines
  std::vector<std::int64_t> contexts;  // prompt lengths; empty: P and P + G of the scenario
  std::string table;                   // engine = table: a file of cost_table_file.h
  HardwareOptions hardware;            // engine = roofline

  void visit(OptionList& list);
};

struct MeasureResult {
  std::string engine;
  std::vector<MeasuredCost> rows;   // rank 0's; empty on others
  double worst_residual = 0.0;      // of StackCosts; 0 where nothing was timed
  std::vector<std::string> doubts;  // of StackCosts; also logged as warnings
};

// Whose rows they are: the run's, or only of a prediction beside it.
enum class MeasureRole { kRun, kPrediction };

// Times every distinct sub-block and the fixed rest for each batch size and context length, and
// records CostRows. Passes that llama-server has made are not made again by a resumed run. Throws
// as check_measure(), and Error(kIo) where the engine cannot be started.
MeasureResult measure(RunContext& context, const LoadedModel& parent, const SearchSpace& space,
                      const Scenario& scenario, const MeasureOptions& options,
                      const TimedEngine& engine, MeasureRole role = MeasureRole::kRun);

// What can be known before anything runs. Throws Error(kIo), Error(kFormat) for a table that cannot
// be read, and Error(kUsage): a table that lacks a sub-block, phase or batch size, hardware without
// a peak for the weight types, a cache type that the engine lacks.
void check_measure(const MeasureOptions& options, const SearchSpace& space,
                   const Scenario& scenario, const std::filesystem::path& parent);

// Distinct sub-blocks of a space, the parent's first.
struct DistinctSubblocks {
  std::vector<AttentionSpec> attention;
  std::vector<FfnSpec> ffn;
};
[[nodiscard]] DistinctSubblocks distinct_subblocks(const SearchSpace& space);
// Those that engines run, with no more FFN widths than the options say (width_costs.h).
[[nodiscard]] DistinctSubblocks timed_subblocks(const SearchSpace& space,
                                                const MeasureOptions& options);

// Prompt lengths to measure at, ascending.
[[nodiscard]] std::vector<std::int64_t> measured_contexts(const Scenario& scenario,
                                                          const MeasureOptions& options);

}  // namespace puzzle
