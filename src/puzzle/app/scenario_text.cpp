#include "puzzle/app/scenario_text.h"

#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"
#include "puzzle/report/number.h"
#include "puzzle/results/throughput_rows.h"

namespace puzzle {
namespace {

// "+3.1 %": a ÷ b − 1. The predicted rate above the measured one is the measured time above the
// predicted one.
std::string change(std::optional<double> a, std::optional<double> b) {
  return a && b.value_or(0.0) > 0.0 ? format_change(*a / *b) : "–";
}

Json workload_json(const ThroughputRow& row) {
  Json json = timed_json(row);
  json["total_s"] = measured_total_s(row);
  json["samples"] = row.samples;
  return json;
}

}  // namespace

std::string scenario_table_text(const std::vector<ThroughputRow>& rows) {
  constexpr const char* kLine =
      "{:>6} {:>7} {:>10}   {:>8} {:>8}   {:>8} {:>8}   {:>7}   {:>8} {:>11}\n";
  std::string text =
      fmt::format(kLine, "", "", "", "prefill,", "s", "tokens", "per s", "", "predicted", "") +
      fmt::format(kLine, "batch", "prompt", "generated", "parent", "child", "parent", "child",
                  "faster", "prefill", "generation");
  for (const TimedPair& pair : timed_pairs(rows, "parent", "child")) {
    const ThroughputRow& parent = *pair.parent;
    const ThroughputRow& child = *pair.model;
    text += fmt::format(kLine, child.batch, child.prompt_tokens, child.generated_tokens,
                        format_significant(parent.measured_prefill_s.value_or(0.0)),
                        format_significant(child.measured_prefill_s.value_or(0.0)),
                        format_significant(*parent.measured_generation_per_s, 4),
                        format_significant(*child.measured_generation_per_s, 4),
                        format_ratio(measured_total_s(parent) / measured_total_s(child)),
                        change(child.measured_prefill_s, child.predicted_prefill_s),
                        change(child.predicted_generation_per_s, child.measured_generation_per_s));
  }
  return text;
}

Json scenario_table_json(const std::vector<ThroughputRow>& rows) {
  Json table = Json::array();
  for (const TimedPair& pair : timed_pairs(rows, "parent", "child")) {
    table.push_back({{"batch", pair.model->batch},
                     {"prompt_tokens", pair.model->prompt_tokens},
                     {"generated_tokens", pair.model->generated_tokens},
                     {"parent", workload_json(*pair.parent)},
                     {"child", workload_json(*pair.model)},
                     {"speed_up", measured_total_s(*pair.parent) / measured_total_s(*pair.model)}});
  }
  return table;
}

Json timed_json(const ThroughputRow& row) {
  return {{"prefill_s", optional_json(row.measured_prefill_s)},
          {"generation_tokens_per_s", optional_json(row.measured_generation_per_s)},
          {"predicted_prefill_s", optional_json(row.predicted_prefill_s)},
          {"predicted_generation_tokens_per_s", optional_json(row.predicted_generation_per_s)}};
}

}  // namespace puzzle
