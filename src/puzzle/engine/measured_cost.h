// One measured, tabulated or computed time: the row type that every engine produces and
// cost_model.h consumes. results/rows.h stores the same facts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "puzzle/arch/block_spec.h"

namespace puzzle {

enum class Phase { kPrefill, kGenerate };

[[nodiscard]] std::string_view phase_name(Phase phase);  // "prefill", "generate"
// Throws Error(kFormat); `place` opens the message.
[[nodiscard]] Phase parse_phase(std::string_view name, const std::string& place);

// Names of what is timed: "attention/kv3", "ffn/w768", and "fixed" for embedding, head and
// sampling.
inline constexpr std::string_view kFixedSubblock = "fixed";
[[nodiscard]] std::string subblock_name(const AttentionSpec& attention);
[[nodiscard]] std::string subblock_name(const FfnSpec& ffn);
// Throws Error(kFormat) unless `name` is one of the forms above, as those functions spell it.
void check_subblock_name(std::string_view name, const std::string& place);

struct MeasuredCost {
  std::string subblock;
  Phase phase = Phase::kPrefill;
  std::int64_t batch = 1;    // sequences
  std::int64_t context = 0;  // prefill: prompt tokens; generate: tokens cached before the new one
  double seconds = 0.0;      // fitted to the quietest calls (stack_times.h), or computed; of the
                             // whole prompt, or of one step; for the whole batch
  double p10_s = 0.0;        // quantiles of fits to resampled calls
  double p90_s = 0.0;
  std::int64_t samples = 0;  // 0: not measured here, or interpolated between widths

  bool operator==(const MeasuredCost&) const = default;
};

}  // namespace puzzle
