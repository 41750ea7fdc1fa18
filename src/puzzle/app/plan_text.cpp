// A plan for people and for programs.
#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/app/plan.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

// "32.3 G", with the prefixes of physics: a billion is G here.
std::string si_text(double value) {
  constexpr std::array kPrefixes = {"", "k", "M", "G", "T", "P", "E", "Z", "Y"};
  std::size_t at = 0;
  while (value >= 999.5 && at + 1 < kPrefixes.size()) {
    value /= 1000.0;
    ++at;
  }
  return fmt::format("{:.3g} {}", value, kPrefixes[at]);
}

}  // namespace

std::string plan_text(const Plan& plan) {
  std::string text = fmt::format(
      "parent {}: {} parameters; 10^{:.0f} architectures, {} variants to score\n"
      "child taken as {:.0f} % of the parent's layers; times at {}FLOP/s in large fp32 products\n\n"
      "{:<15} {:>9} {:>11} {:>10} {:>10} {:>14}\n",
      plan.parent, human_count(static_cast<double>(plan.parent_parameters)),
      plan.log10_architectures, plan.num_candidates, 100.0 * plan.child_fraction,
      si_text(plan.flops_per_s), "stage", "tokens", "FLOPs", "memory", "disk", "time");
  for (const StagePlan& stage : plan.stages) {
    text += fmt::format("{:<15} {:>9} {:>11} {:>10} {:>10} {:>14}\n", stage.stage,
                        human_count(static_cast<double>(stage.tokens)), si_text(stage.flops),
                        human_bytes(stage.memory_bytes), human_bytes(stage.disk_bytes),
                        human_seconds(stage.seconds));
  }
  return text + fmt::format("{:<15} {:>58}\n", "total", human_seconds(plan.seconds()));
}

Json plan_json(const Plan& plan) {
  Json stages = Json::array();
  for (const StagePlan& stage : plan.stages) {
    stages.push_back({{"stage", stage.stage},
                      {"tokens", stage.tokens},
                      {"flops", stage.flops},
                      {"memory_bytes", stage.memory_bytes},
                      {"disk_bytes", stage.disk_bytes},
                      {"seconds", stage.seconds}});
  }
  return {{"parent", plan.parent},
          {"parameters", plan.parent_parameters},
          {"log10_architectures", plan.log10_architectures},
          {"variants", plan.num_candidates},
          {"child_fraction", plan.child_fraction},
          {"flops_per_s", plan.flops_per_s},
          {"seconds", plan.seconds()},
          {"stages", stages}};
}

}  // namespace puzzle
