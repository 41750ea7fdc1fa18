// Robust medians of repeated measurements, for every engine that runs something.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace puzzle {

class OptionList;

struct TimingPolicy {
  std::int64_t warmup_calls = 1;  // not counted
  std::int64_t samples = 5;       // counted calls per round
  double max_spread = 0.1;        // a round is quiet if (p90 - p10) / median is at most this
  std::int64_t max_rounds = 3;    // rounds until one is quiet
  double max_seconds = 60.0;      // no further call once this long has passed since the first one
                                  // began; one counted call is always made

  void visit(OptionList& list);
};

struct Timing {
  double median_s = 0.0;
  double p10_s = 0.0;
  double p90_s = 0.0;
  std::int64_t samples = 0;  // of the round reported; fewer than asked for if time ran out
  std::int64_t rounds = 0;   // made in all

  // (p90 - p10) / median; 0 for a median of 0.
  [[nodiscard]] double spread() const;
};

// Linear interpolation between order statistics; `fraction` in [0, 1]. `values` must not be empty.
[[nodiscard]] double quantile(std::vector<double> values, double fraction);

// Robust location and spread of calls that other processes disturb, which only ever makes them
// longer: the mean of the smallest quarter (rounded up, at least three) of the values, and the
// range of that quarter divided by it. `values` must not be empty.
[[nodiscard]] double quiet_seconds(std::vector<double> values);
[[nodiscard]] double quiet_spread(std::vector<double> values);

// Calls `run_once` in rounds of `policy.samples` until a round is quiet, and reports the quietest
// round: other processes only ever disturb, so the least disturbed round is the best estimate.
// `run_once` returns the seconds that each of its parts took (e.g. prefill and step), always
// equally many, by whatever clock it trusts; a round is as noisy as the noisiest of them. Throws
// Error(kNumeric) for a negative or non-finite time; passes on what `run_once` throws, and
// Error(kInterrupted) between calls.
[[nodiscard]] std::vector<Timing> measure_seconds(
    const std::function<std::vector<double>()>& run_once, const TimingPolicy& policy);

}  // namespace puzzle
