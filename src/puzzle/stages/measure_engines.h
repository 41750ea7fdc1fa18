// The engines of stage `measure` that run something, on rank 0; they call `keep_step` after every
// pass over all stacks. Private to measure.cpp.
#pragma once

#include <string>

#include "puzzle/engine/stack_measurement.h"
#include "puzzle/stages/measure.h"
#include "puzzle/stages/rank_lead.h"

namespace puzzle {

[[nodiscard]] StackCosts measure_native(const LoadedModel& parent, const SearchSpace& space,
                                        const Scenario& scenario, const MeasureOptions& options,
                                        const TimingPolicy& timing, const KeepStep& keep_step);

// `key`: of the measurement, for its files in the run folder: models, which are gone afterwards,
// and the passes made so far, which stay until the result is recorded.
[[nodiscard]] StackCosts measure_llama_server(const RunContext& context, const LoadedModel& parent,
                                              const SearchSpace& space, const Scenario& scenario,
                                              const MeasureOptions& options,
                                              const TimedEngine& engine, const std::string& key,
                                              const KeepStep& keep_step);
void remove_llama_server_passes(const RunContext& context, const Scenario& scenario,
                                const std::string& key);

}  // namespace puzzle
