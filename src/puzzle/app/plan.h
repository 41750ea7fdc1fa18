// What a run will cost before anything starts: tokens, FLOPs, memory, disk and time per stage, from
// the parent's configuration alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/app/recipe.h"

namespace puzzle {

struct StagePlan {
  std::string stage{};
  std::int64_t tokens = 0;
  double flops = 0.0;
  double memory_bytes = 0.0;  // at its peak, parent included
  double disk_bytes = 0.0;    // written; scratch files that go again included
  double seconds = 0.0;       // at the rate given
};

struct Plan {
  std::string parent;
  std::int64_t parent_parameters = 0;
  double log10_architectures = 0.0;
  std::int64_t num_candidates = 0;
  // What the budgets leave of the parent's layers, as far as a recipe can tell: the tightest of
  // those that are relative or bound parameters or bytes (1 without one).
  double child_fraction = 1.0;
  double flops_per_s = 0.0;
  std::vector<StagePlan> stages;

  [[nodiscard]] double seconds() const;
};

// `flops_per_s`: of large fp32 matrix products on this machine (see measure_flops_per_s). Times are
// for one process; on the two cores that they are calibrated on they are within a third of what
// stages of about a minute and more took. Timings in llama.cpp are taken to need all their rounds.
// Checks the search first: throws as check_search_options() and check_exact_budgets().
[[nodiscard]] Plan make_plan(const Recipe& recipe, const ModelSpec& parent, double flops_per_s);

// A short matrix product on the recipe's device.
[[nodiscard]] double measure_flops_per_s(const std::string& device);

[[nodiscard]] std::string plan_text(const Plan& plan);
[[nodiscard]] nlohmann::json plan_json(const Plan& plan);

}  // namespace puzzle
