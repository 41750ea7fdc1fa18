#include "puzzle/engine/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/options.h"

namespace puzzle {
namespace {

using TimingClock = std::chrono::steady_clock;

// Calls made and times taken, bounded by the policy's limit.
class TimedCalls {
 public:
  TimedCalls(const std::function<std::vector<double>()>& run_once, double max_seconds)
      : run_once_(run_once), max_seconds_(max_seconds), start_(TimingClock::now()) {}

  [[nodiscard]] bool out_of_time() const {
    return std::chrono::duration<double>(TimingClock::now() - start_).count() >= max_seconds_;
  }

  std::vector<double> call() {
    throw_if_interrupted();
    std::vector<double> seconds = run_once_();
    PUZZLE_CHECK(!seconds.empty() && (count_ == 0 || seconds.size() == count_),
                 "a measurement gave {} times, then {}", count_, seconds.size());
    count_ = seconds.size();
    for (const double value : seconds) {
      if (!std::isfinite(value) || value < 0.0) {
        fail(ErrorKind::kNumeric, "a measurement gave {} seconds", value);
      }
    }
    return seconds;
  }

 private:
  const std::function<std::vector<double>()>& run_once_;
  double max_seconds_;
  TimingClock::time_point start_;
  std::size_t count_ = 0;
};

// One round of calls, summarised per time. At least one call; fewer than `samples` if time runs
// out.
std::vector<Timing> time_round(TimedCalls& calls, std::int64_t samples) {
  std::vector<std::vector<double>> columns;
  for (std::int64_t sample = 0; sample < samples && (sample == 0 || !calls.out_of_time());
       ++sample) {
    const std::vector<double> seconds = calls.call();
    columns.resize(seconds.size());
    for (std::size_t i = 0; i < seconds.size(); ++i) {
      columns[i].push_back(seconds[i]);
    }
  }
  std::vector<Timing> timings;
  for (const std::vector<double>& column : columns) {
    timings.push_back({quantile(column, 0.5), quantile(column, 0.1), quantile(column, 0.9),
                       static_cast<std::int64_t>(column.size())});
  }
  return timings;
}

// The smallest quarter, rounded up and at least three, in rising order.
std::vector<double> quietest_quarter(std::vector<double> values) {
  PUZZLE_CHECK(!values.empty(), "no values");
  std::sort(values.begin(), values.end());
  values.resize(std::min(values.size(), std::max<std::size_t>(3, (values.size() + 3) / 4)));
  return values;
}

double worst_spread(const std::vector<Timing>& timings) {
  double worst = 0.0;
  for (const Timing& timing : timings) {
    worst = std::max(worst, timing.spread());
  }
  return worst;
}

}  // namespace

void TimingPolicy::visit(OptionList& list) {
  list.add("warmup_calls", warmup_calls, Range<std::int64_t>{0, 1000},
           "Calls that are not counted.");
  list.add("samples", samples, Range<std::int64_t>{1, 10000}, "Counted calls per round.");
  list.add(
      "max_spread", max_spread, Range<double>{0.0, 100.0},
      "Rounds are added while times spread by more than this: (p90 - p10) / median of a round; of "
      "stacks of sub-blocks the range of the quietest quarter of all samples.");
  list.add("max_rounds", max_rounds, Range<std::int64_t>{1, 100},
           "Rounds at most. The quietest counts; of stacks of sub-blocks all do.");
  list.add("max_seconds", max_seconds, Range<double>{0.0, 86400.0},
           "No further call after this long; per stack where stacks take turns.");
}

double Timing::spread() const { return median_s > 0.0 ? (p90_s - p10_s) / median_s : 0.0; }

double quantile(std::vector<double> values, double fraction) {
  PUZZLE_CHECK(!values.empty() && fraction >= 0.0 && fraction <= 1.0, "{} values, fraction {}",
               values.size(), fraction);
  std::sort(values.begin(), values.end());
  const double position = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  const double weight = position - static_cast<double>(below);
  return values[below] + (values[above] - values[below]) * weight;
}

double quiet_seconds(std::vector<double> values) {
  const std::vector<double> quarter = quietest_quarter(std::move(values));
  return std::accumulate(quarter.begin(), quarter.end(), 0.0) / static_cast<double>(quarter.size());
}

double quiet_spread(std::vector<double> values) {
  const double seconds = quiet_seconds(values);
  const std::vector<double> quarter = quietest_quarter(std::move(values));
  return seconds > 0.0 ? (quarter.back() - quarter.front()) / seconds : 0.0;
}

std::vector<Timing> measure_seconds(const std::function<std::vector<double>()>& run_once,
                                    const TimingPolicy& policy) {
  TimedCalls calls(run_once, policy.max_seconds);
  for (std::int64_t call = 0; call < policy.warmup_calls && !calls.out_of_time(); ++call) {
    calls.call();
  }
  std::vector<Timing> best;
  std::int64_t rounds = 0;
  do {
    const std::vector<Timing> round = time_round(calls, policy.samples);
    ++rounds;
    // A round that time cut short looks quiet only because it is short.
    const bool comparable = best.empty() || round.front().samples == best.front().samples;
    if (comparable && (best.empty() || worst_spread(round) < worst_spread(best))) {
      best = round;
    }
  } while (worst_spread(best) > policy.max_spread && rounds < policy.max_rounds &&
           !calls.out_of_time());
  for (Timing& timing : best) {
    timing.rounds = rounds;
  }
  return best;
}

}  // namespace puzzle
