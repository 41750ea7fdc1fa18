#include "puzzle/app/plan_timing.h"

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

double timed_calls(const TimingPolicy& policy) {
  return static_cast<double>(policy.warmup_calls + policy.samples * policy.max_rounds);
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

double TimedFilesPlan::seconds(double read, double steps) const {
  return 2.0 * (kServerStartSeconds + read * token_s_ + steps * step_s_);
}

double TimedFilesPlan::throughput_seconds() const {
  const double calls = timed_calls(recipe_.engine.timing);
  return seconds(static_cast<double>(recipe_.throughput.quality_tokens) +
                     calls * static_cast<double>(recipe_.scenario.prompt_tokens),
                 static_cast<double>(recipe_.throughput.log_prob_tokens) +
                     calls * static_cast<double>(recipe_.scenario.generated_tokens));
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
  const double calls = timed_calls(recipe_.engine.timing);
  double sum = recipe_.scenarios.predict ? prediction_seconds() : 0.0;
  for (const Workload& workload : recipe_.scenarios.workloads()) {
    sum += seconds(calls * static_cast<double>(workload.batch * workload.prompt_tokens),
                   calls * static_cast<double>(workload.generated_tokens));
  }
  return sum;
}

double TimedFilesPlan::prediction_seconds() const {
  const double calls = timed_calls(recipe_.engine.timing);
  const double stacks = static_cast<double>(recipe_.measure.widths) + kOtherStacks;
  double sum = 0.0;
  for (const std::int64_t batch : recipe_.scenarios.batch) {
    for (const std::int64_t prompt : predicted_contexts(recipe_.scenarios.workloads())) {
      sum += seconds(calls * static_cast<double>(batch * prompt),
                     calls * static_cast<double>(recipe_.measure.steps)) /
             2.0;
    }
  }
  return stacks * stack_share_ * sum;
}

}  // namespace puzzle
