// The table of the stage `scenarios`, for people and for programs.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/results/rows.h"

namespace puzzle {

// One line per workload that parent and child were timed at: speeds, how many times faster the
// child is from prompt to end, and how far its predicted rates were off.
[[nodiscard]] std::string scenario_table_text(const std::vector<ThroughputRow>& rows);
// [{"batch", "prompt_tokens", "generated_tokens", "parent": {…}, "child": {…}}, …]
[[nodiscard]] nlohmann::json scenario_table_json(const std::vector<ThroughputRow>& rows);

// {"prefill_s", "generation_tokens_per_s", "predicted_prefill_s",
// "predicted_generation_tokens_per_s"}, null where it is not known.
[[nodiscard]] nlohmann::json timed_json(const ThroughputRow& row);

}  // namespace puzzle
