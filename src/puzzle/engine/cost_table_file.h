// Cost tables as JSON, for times measured elsewhere (vLLM, TensorRT-LLM, another machine):
//
//   {"format": "puzzle-costs", "version": 1,
//    "engine": "vllm 0.11", "hardware": "H100-SXM, FP8",
//    "rows": [{"subblock": "ffn/w14336", "phase": "generate", "batch": 64, "context": 2048,
//              "seconds": 0.00021, "p10_s": 0.0002, "p90_s": 0.00023, "samples": 20}, …]}
//
// "engine" and "hardware" (for the record), "p10_s", "p90_s" and "samples" may be left out.
// `seconds` is for the whole batch: of the whole prompt, or of one step after `context` cached
// tokens. "fixed" is everything outside the layers. Sub-blocks named "none" may be left out: they
// cost nothing.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/engine/measured_cost.h"

namespace puzzle {

struct CostTable {
  std::string engine;
  std::string hardware;
  std::vector<MeasuredCost> rows;

  bool operator==(const CostTable&) const = default;
};

// Throw Error(kFormat) with the row's number (from 0): unknown or missing keys, unknown names,
// numbers out of range, quantiles that do not enclose the median, two rows for the same thing.
[[nodiscard]] CostTable parse_cost_table(std::string_view text, const std::string& place);
[[nodiscard]] CostTable load_cost_table(const std::filesystem::path& path);
void save_cost_table(const std::filesystem::path& path, const CostTable& table);

}  // namespace puzzle
