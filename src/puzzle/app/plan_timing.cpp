#include "puzzle/app/plan_timing.h"

#include <algorithm>
#include <cmath>

#include "puzzle/app/plan_work.h"
#include "puzzle/arch/cost.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

// Calibrated on the demo (recipes/smollm2-cpu.yaml) as it ran on two shared AMD EPYC cores.
constexpr double kServerStartSeconds = 3.0;    // one file, tokenizer and warm-up included
constexpr double kWeightBytesPerS = 12e9;      // a generated token in llama.cpp: its weights from
constexpr double kStepSecondsPerLayer = 4e-4;  // memory, and what starting each layer takes
constexpr double kQuantisedPrefillRate = 0.4;  // of fp32 matrix products
constexpr double kOtherStacks = 6.0;           // besides those of FFN widths

}  // namespace

double timed_calls(const TimingPolicy& policy, double call_s) {
  const auto all = static_cast<double>(policy.warmup_calls + policy.samples * policy.max_rounds);
  const double begun = call_s > 0.0 ? std::ceil(policy.max_seconds / call_s) : all;
  return std::min(all, std::max(begun, static_cast<double>(policy.warmup_calls + 1)));
}

TimedFilesPlan::TimedFilesPlan(const Recipe& recipe, const ModelSpec& parent, double flops_per_s)
    : recipe_(recipe) {
  const auto layers = static_cast<double>(parent.num_layers());
  const WeightTypes types =
      deployed_types(recipe.export_child.types, recipe.scenario, recipe.model);
  file_bytes_ = static_cast<double>(model_cost(parent, ExportTarget::kNative, types).weight_bytes);
  token_s_ =
      layers_work(parent, recipe.data.window).flops() / (kQuantisedPrefillRate * flops_per_s);
  step_s_ = file_bytes_ / kWeightBytesPerS + kStepSecondsPerLayer * layers;
  stack_share_ = static_cast<double>(recipe.measure.stack_layers) / layers;
}

double TimedFilesPlan::call_seconds(std::int64_t read, std::int64_t steps) const {
  return static_cast<double>(read) * token_s_ + static_cast<double>(steps) * step_s_;
}

double TimedFilesPlan::timed_seconds(std::int64_t read, std::int64_t steps) const {
  const double call_s = 2.0 * call_seconds(read, steps);
  return 2.0 * kServerStartSeconds + timed_calls(recipe_.engine.timing, call_s) * call_s;
}

double TimedFilesPlan::throughput_seconds() const {
  return timed_seconds(recipe_.scenario.prompt_tokens, recipe_.scenario.generated_tokens) +
         2.0 * call_seconds(recipe_.throughput.quality_tokens, recipe_.throughput.log_prob_tokens);
}

std::int64_t TimedFilesPlan::scenarios_tokens() const {
  std::int64_t tokens = 0;
  for (const Workload& workload : recipe_.scenarios.workloads()) {
    tokens += workload.batch * (workload.prompt_tokens + workload.generated_tokens);
  }
  return tokens;
}

// Sequences of a batch are taken to share the time of a step.
double TimedFilesPlan::scenarios_seconds() const {
  double sum = recipe_.scenarios.predict ? prediction_seconds() : 0.0;
  for (const Workload& workload : recipe_.scenarios.workloads()) {
    sum += timed_seconds(workload.batch * workload.prompt_tokens, workload.generated_tokens);
  }
  return sum;
}

double TimedFilesPlan::prediction_seconds() const {
  const double stacks = static_cast<double>(recipe_.measure.widths) + kOtherStacks;
  const std::vector<Workload> workloads = recipe_.scenarios.workloads();
  const std::int64_t steps = predicted_steps(workloads, recipe_.measure.steps);
  double sum = 0.0;
  for (const std::int64_t batch : recipe_.scenarios.batch) {
    double call_s = 0.0;  // of one stack, all contexts
    for (const std::int64_t prompt : predicted_contexts(workloads)) {
      call_s += stack_share_ * call_seconds(batch * prompt, steps);
    }
    sum += kServerStartSeconds + timed_calls(recipe_.engine.timing, call_s) * call_s;
  }
  return stacks * sum;
}

}  // namespace puzzle
