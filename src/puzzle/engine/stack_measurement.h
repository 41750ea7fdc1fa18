// Costs of sub-blocks from models that stack them, on a machine that is never quite
// quiet.
//
// All stacks are timed in turn, pass by pass, so that drift of the machine hits all alike and
// cancels in their differences. A stack counts with quiet_seconds() of its samples, and
// stack_times.h takes the sub-blocks apart. A row's p10 and p90 are quantiles of the fit's answers
// when the passes are drawn again with replacement (bootstrap): how far the row itself is
// uncertain. Rows that cannot be right cause another round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "puzzle/engine/measured_cost.h"
#include "puzzle/engine/timing.h"

namespace puzzle {

// What one of a stack's times stands for.
struct StackPoint {
  Phase phase = Phase::kPrefill;
  std::int64_t batch = 1;
  std::int64_t context = 0;  // as in MeasuredCost
};

struct StackPlan {
  std::vector<std::map<std::string, std::int64_t>> counts;  // per stack: sub-blocks in it
  std::vector<StackPoint> points;
  // What every stack has once. Any other name than "fixed" is overhead of the timing and no row.
  std::string shared = "fixed";
};

using StackSamples = std::vector<std::vector<std::vector<double>>>;  // s, [stack][point][pass]

struct StackCosts {
  std::vector<MeasuredCost> rows;
  double worst_residual = 0.0;      // |predicted - measured| / measured of a stack
  std::vector<std::string> doubts;  // why rows cannot be trusted; empty if they can
};

// A stack that the fitted sub-blocks miss by more than this is doubtful.
inline constexpr double kMaxStackResidual = 0.05;

// Doubtful are: a stack whose quieter samples spread by more than `max_spread`, one beyond
// kMaxStackResidual, a row of 0 s, a row whose p10 to p90 is wider than itself, and those of
// doubtful_order(). Throws as solve_subblock_times().
[[nodiscard]] StackCosts fit_stack_costs(const StackPlan& plan, const StackSamples& samples,
                                         double max_spread);

// Fewer KV heads or a smaller width that take longer than more of them, beyond p10 and p90.
[[nodiscard]] std::vector<std::string> doubtful_order(const std::vector<MeasuredCost>& rows);

struct StackCalls {
  std::function<std::vector<double>(std::size_t stack)> time;     // seconds, one per point
  std::function<void(const StackSamples&)> after_pass = nullptr;  // e.g. to keep what there is
};

// Rounds of `policy.samples` passes over all stacks, until a fit leaves no doubt, `max_rounds` are
// made, or `max_seconds` per stack have passed; every pass counts. `samples`: of an interrupted
// run. Throws what `time` throws, and Error(kInterrupted).
[[nodiscard]] StackCosts measure_stacks(const StackPlan& plan, const TimingPolicy& policy,
                                        const StackCalls& calls, StackSamples samples = {});

}  // namespace puzzle
