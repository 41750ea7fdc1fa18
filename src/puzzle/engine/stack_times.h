// Times of single sub-blocks from times of whole models that stack them (sub-blocks are
// timed in stacks and by difference, so that fixed overhead cancels; the fixed rest is its own
// row).
//
// Least squares with all times >= 0 (Lawson & Hanson, NNLS). Each equation is divided by its
// measured time, since a machine's noise is proportional to what it disturbs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace puzzle {

// A model that was built and timed: how often each sub-block occurs, and the seconds of the whole.
// What every stack has once (`shared`) is counted by itself and must not be named.
struct StackTiming {
  std::map<std::string, std::int64_t> counts;
  double seconds = 0.0;  // > 0
};

struct SubblockTimes {
  std::map<std::string, double> seconds;  // by sub-block, and `shared`
  // |predicted - measured| / measured over the stacks: root mean square, and the worst.
  double residual_rms = 0.0;
  double residual_max = 0.0;
  std::vector<double> residuals;  // (predicted - measured) / measured, in the order given
  std::vector<std::string>
      at_zero;  // sub-blocks whose time came out negative without the constraint
};

// Throws Error(kUsage) where the stacks do not determine every sub-block (naming one that they
// leave open), and Error(kNumeric) for times that are not positive and finite.
[[nodiscard]] SubblockTimes solve_subblock_times(const std::vector<StackTiming>& stacks,
                                                 const std::string& shared = "fixed");

}  // namespace puzzle
