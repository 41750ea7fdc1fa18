// The two tables that ThroughputRows make: the run's own workload, and the table of scenarios.
#pragma once

#include <string>
#include <vector>

#include "puzzle/results/run_db.h"

namespace puzzle {

// Scope (RunDb::set_current) of the table of scenarios.
inline constexpr const char* kScenarioScope = "scenarios";

// Current rows, in the order of RunDb::throughput(). A workload may stand in both tables.
[[nodiscard]] std::vector<ThroughputRow> run_throughput(const RunDb& db);
[[nodiscard]] std::vector<ThroughputRow> scenario_throughput(const RunDb& db);

// Seconds of prefill and of all steps of generation, as measured; 0 where a row lacks one.
[[nodiscard]] double measured_generation_s(const ThroughputRow& row);
[[nodiscard]] double measured_total_s(const ThroughputRow& row);

// Two models' rows of one engine and workload, generation of both measured; they point into the
// rows given.
struct TimedPair {
  const ThroughputRow* parent = nullptr;
  const ThroughputRow* model = nullptr;
};
// In the order of the model's rows.
[[nodiscard]] std::vector<TimedPair> timed_pairs(const std::vector<ThroughputRow>& rows,
                                                 const std::string& parent,
                                                 const std::string& model);

}  // namespace puzzle
