// How long exported files are timed in llama.cpp, for plans.
#pragma once

#include <cstdint>

#include "puzzle/app/recipe.h"
#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Calls of a timing that is as noisy as a machine with other users makes it: all rounds it may
// take, as far as the policy's time goes with calls of `call_s` seconds.
[[nodiscard]] double timed_calls(const TimingPolicy& policy, double call_s);

// The parent's file, as the recipe exports it, in llama.cpp on a machine of this rate in large fp32
// products; the child's is taken to be as slow.
class TimedFilesPlan {
 public:
  TimedFilesPlan(const Recipe& recipe, const ModelSpec& parent, double flops_per_s);

  [[nodiscard]] double file_bytes() const { return file_bytes_; }
  [[nodiscard]] double throughput_seconds() const;
  [[nodiscard]] double scenarios_seconds() const;
  [[nodiscard]] std::int64_t scenarios_tokens() const;

 private:
  // Of one file: tokens of prefill, and steps.
  [[nodiscard]] double call_seconds(std::int64_t read, std::int64_t steps) const;
  // Of both files, all calls that the timing policy makes.
  [[nodiscard]] double timed_seconds(std::int64_t read, std::int64_t steps) const;
  [[nodiscard]] double prediction_seconds() const;

  const Recipe& recipe_;
  double file_bytes_ = 0.0;
  double token_s_ = 0.0;  // of prefill
  double step_s_ = 0.0;
  double stack_share_ = 0.0;  // a stack's depth over the model's
};

}  // namespace puzzle
