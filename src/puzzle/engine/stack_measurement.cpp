#include "puzzle/engine/stack_measurement.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <span>
#include <tuple>

#include <fmt/ranges.h>

#include "puzzle/base/error.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/engine/stack_times.h"

namespace puzzle {
namespace {

constexpr int kBootstrapDraws = 200;

std::string point_text(const StackPoint& point) {
  return fmt::format("{} of batch {} at {} tokens", phase_name(point.phase), point.batch,
                     point.context);
}

std::string stack_text(const std::map<std::string, std::int64_t>& counts) {
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) {
    parts.push_back(fmt::format("{} x {}", count, name));
  }
  return fmt::format("stack of {}", fmt::join(parts, ", "));
}

std::string row_text(const MeasuredCost& row) {
  return row.subblock + " " + point_text({row.phase, row.batch, row.context});
}

std::size_t num_passes(const StackSamples& samples) {
  return samples.empty() ? 0 : samples.front().front().size();
}

// The stacks' times at one point, of the passes in `drawn`.
std::vector<StackTiming> stack_equations(const StackPlan& plan, const StackSamples& samples,
                                         std::size_t point, const std::vector<std::size_t>& drawn) {
  std::vector<StackTiming> equations;
  for (std::size_t s = 0; s < plan.counts.size(); ++s) {
    std::vector<double> values;
    for (const std::size_t pass : drawn) {
      values.push_back(samples[s][point][pass]);
    }
    equations.push_back({plan.counts[s], quiet_seconds(std::move(values))});
  }
  return equations;
}

// Answers of the fit with the passes drawn again, by sub-block. The same passes are drawn for every
// stack, so what disturbed a whole pass still cancels.
std::map<std::string, std::vector<double>> bootstrap_answers(const StackPlan& plan,
                                                             const StackSamples& samples,
                                                             std::size_t point) {
  std::map<std::string, std::vector<double>> answers;
  std::mt19937_64 random(point);
  std::vector<std::size_t> drawn(num_passes(samples));
  for (int draw = 0; draw < kBootstrapDraws; ++draw) {
    for (std::size_t& pass : drawn) {
      pass = random() % drawn.size();
    }
    const SubblockTimes times =
        solve_subblock_times(stack_equations(plan, samples, point, drawn), plan.shared);
    for (const auto& [name, seconds] : times.seconds) {
      answers[name].push_back(seconds);
    }
  }
  return answers;
}

void add_stack_doubts(const StackPlan& plan, const StackSamples& samples, std::size_t point,
                      const SubblockTimes& times, double max_spread,
                      std::vector<std::string>& doubts) {
  for (std::size_t s = 0; s < plan.counts.size(); ++s) {
    const double spread = quiet_spread(samples[s][point]);
    if (spread > max_spread) {
      doubts.push_back(
          fmt::format("{}, {}: even the quietest quarter of the samples spreads by {:.0f} %",
                      stack_text(plan.counts[s]), point_text(plan.points[point]), 100.0 * spread));
    }
    if (std::abs(times.residuals[s]) > kMaxStackResidual) {
      doubts.push_back(fmt::format("{}, {}: its parts add up to {:+.0f} %",
                                   stack_text(plan.counts[s]), point_text(plan.points[point]),
                                   100.0 * times.residuals[s]));
    }
  }
}

// Largest part of a stack's time at `point` that `name` would make up if it took `seconds`.
double largest_share(const StackPlan& plan, const StackSamples& samples, std::size_t point,
                     const std::string& name, double seconds) {
  double largest = 0.0;
  for (std::size_t s = 0; s < plan.counts.size(); ++s) {
    const auto count = plan.counts[s].find(name);
    const auto times = name == kFixedSubblock          ? 1.0
                       : count == plan.counts[s].end() ? 0.0
                                                       : static_cast<double>(count->second);
    largest = std::max(largest, times * seconds / quiet_seconds(samples[s][point]));
  }
  return largest;
}

// What is small against the whole model's time may be as uncertain as it likes.
void add_row_doubts(const StackPlan& plan, const StackSamples& samples, std::size_t point,
                    std::span<const MeasuredCost> rows, double max_spread,
                    std::vector<std::string>& doubts) {
  for (const MeasuredCost& row : rows) {
    const double spread = row.p90_s - row.p10_s;
    const bool matters = largest_share(plan, samples, point, row.subblock, spread) > max_spread;
    if (row.seconds <= 0.0 && (matters || row.subblock != kFixedSubblock)) {
      doubts.push_back(row_text(row) + ": 0 s");
    } else if (matters && spread > row.seconds) {
      doubts.push_back(fmt::format("{}: between {:.3g} and {:.3g} ms", row_text(row),
                                   1e3 * row.p10_s, 1e3 * row.p90_s));
    }
  }
}

// "attention/kv3" is ("attention/kv", 3), "ffn/w768" ("ffn/w", 768); others have no size.
std::pair<std::string, std::int64_t> sized_name(const std::string& name) {
  const std::size_t digits = name.find_last_not_of("0123456789") + 1;
  return digits == name.size()
             ? std::pair(name, std::int64_t{-1})
             : std::pair(name.substr(0, digits), std::int64_t{std::stoll(name.substr(digits))});
}

void add_pass(const StackPlan& plan, const StackCalls& calls, Progress& progress,
              StackSamples& samples) {
  std::vector<std::vector<double>> pass;
  for (std::size_t s = 0; s < plan.counts.size(); ++s) {
    pass.push_back(calls.time(s));
    PUZZLE_CHECK(pass.back().size() == plan.points.size(), "{} times for {} points",
                 pass.back().size(), plan.points.size());
    progress.advance();
  }
  samples.resize(plan.counts.size(), std::vector<std::vector<double>>(plan.points.size()));
  for (std::size_t s = 0; s < pass.size(); ++s) {
    for (std::size_t p = 0; p < pass[s].size(); ++p) {
      samples[s][p].push_back(pass[s][p]);
    }
  }
}

}  // namespace

std::vector<std::string> doubtful_order(const std::vector<MeasuredCost>& rows) {
  std::map<std::tuple<std::string, Phase, std::int64_t, std::int64_t>,
           std::map<std::int64_t, const MeasuredCost*>>
      families;
  for (const MeasuredCost& row : rows) {
    const auto [family, size] = sized_name(row.subblock);
    if (size >= 0) {
      families[{family, row.phase, row.batch, row.context}][size] = &row;
    }
  }
  std::vector<std::string> doubts;
  for (const auto& [key, sizes] : families) {
    for (auto smaller = sizes.begin(); smaller != sizes.end(); ++smaller) {
      for (auto larger = std::next(smaller); larger != sizes.end(); ++larger) {
        if (smaller->second->p10_s > larger->second->p90_s) {
          doubts.push_back(fmt::format("{}: {:.4g} ms, but {} takes only {:.4g} ms",
                                       row_text(*smaller->second), 1e3 * smaller->second->seconds,
                                       larger->second->subblock, 1e3 * larger->second->seconds));
        }
      }
    }
  }
  return doubts;
}

StackCosts fit_stack_costs(const StackPlan& plan, const StackSamples& samples, double max_spread) {
  StackCosts costs;
  std::vector<std::string> row_doubts;
  std::vector<std::string> stack_doubts;
  std::vector<std::size_t> all(num_passes(samples));
  for (std::size_t pass = 0; pass < all.size(); ++pass) {
    all[pass] = pass;
  }
  for (std::size_t p = 0; p < plan.points.size(); ++p) {
    const StackPoint& point = plan.points[p];
    const SubblockTimes times =
        solve_subblock_times(stack_equations(plan, samples, p, all), plan.shared);
    const auto answers = bootstrap_answers(plan, samples, p);
    const std::size_t first_row = costs.rows.size();
    for (const auto& [name, seconds] : times.seconds) {
      if (name == plan.shared && name != kFixedSubblock) {
        continue;
      }
      costs.rows.push_back({name, point.phase, point.batch, point.context, seconds,
                            std::min(seconds, quantile(answers.at(name), 0.1)),
                            std::max(seconds, quantile(answers.at(name), 0.9)),
                            static_cast<std::int64_t>(all.size())});
    }
    add_row_doubts(plan, samples, p, std::span(costs.rows).subspan(first_row), max_spread,
                   row_doubts);
    costs.worst_residual = std::max(costs.worst_residual, times.residual_max);
    add_stack_doubts(plan, samples, p, times, max_spread, stack_doubts);
  }
  costs.doubts = doubtful_order(costs.rows);
  costs.doubts.insert(costs.doubts.end(), row_doubts.begin(), row_doubts.end());
  costs.doubts.insert(costs.doubts.end(), stack_doubts.begin(), stack_doubts.end());
  return costs;
}

StackCosts measure_stacks(const StackPlan& plan, const TimingPolicy& policy,
                          const StackCalls& calls, StackSamples samples) {
  const auto start = std::chrono::steady_clock::now();
  const auto out_of_time = [&] {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return passed.count() >= policy.max_seconds * static_cast<double>(plan.counts.size());
  };
  const auto stacks = static_cast<std::int64_t>(plan.counts.size());
  bool is_warm = false;
  for (std::int64_t round = 1;; ++round) {
    const std::int64_t wanted = round * policy.samples;
    const std::int64_t missing = wanted - static_cast<std::int64_t>(num_passes(samples));
    if (missing > 0) {
      const std::int64_t warmup = is_warm ? 0 : policy.warmup_calls;
      Progress progress("measure", (warmup + missing) * stacks, "timings");
      for (std::int64_t pass = 0; pass < warmup && !out_of_time(); ++pass) {
        StackSamples ignored;
        add_pass(plan, calls, progress, ignored);
      }
      is_warm = true;
      for (std::int64_t pass = 0; pass < missing && (samples.empty() || !out_of_time()); ++pass) {
        add_pass(plan, calls, progress, samples);
        if (calls.after_pass) {
          calls.after_pass(samples);
        }
      }
    }
    StackCosts costs = fit_stack_costs(plan, samples, policy.max_spread);
    if (costs.doubts.empty() || round >= policy.max_rounds || out_of_time()) {
      return costs;
    }
    log_info("measure: round {} again, {} doubts: {}", round + 1, costs.doubts.size(),
             costs.doubts.front());
  }
}

}  // namespace puzzle
