#include "puzzle/mip/solver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "puzzle/base/interrupt.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

using SolveClock = std::chrono::steady_clock;

double solve_seconds_since(SolveClock::time_point start) {
  return std::chrono::duration<double>(SolveClock::now() - start).count();
}

void begin_solution(const SolveOptions& options) {
  throw_if_interrupted();
  if (options.before_each) {
    options.before_each();
  }
}

double largest_score(const Problem& problem) {
  double largest = 0.0;
  for (const auto& choices : problem.layers) {
    for (const Choice& choice : choices) {
      largest = std::max(largest, std::abs(choice.score));
    }
  }
  return largest;
}

// With the best choice of every layer, whatever it costs.
double lowest_objective(const Problem& problem) {
  double sum = 0.0;
  for (const auto& choices : problem.layers) {
    double lowest = std::numeric_limits<double>::infinity();
    for (const Choice& choice : choices) {
      lowest = std::min(lowest, choice.score);
    }
    sum += lowest;
  }
  return sum;
}

// `smallest` stands in for an objective of zero, to which nothing is relative.
double relative_gap(double objective, double bound, double smallest) {
  const double difference = objective - bound;
  return difference <= 0.0 ? 0.0 : difference / std::max(std::abs(objective), smallest);
}

// The problem of the best attainable sum of one cost; its scores are that cost (or its negative).
Problem reach_problem(const Problem& problem, std::size_t cost, bool is_upper) {
  Problem result = problem;
  result.num_solutions = 1;
  for (auto& choices : result.layers) {
    for (Choice& choice : choices) {
      choice.score = is_upper ? choice.costs[cost] : -choice.costs[cost];
    }
  }
  return result;
}

std::string reach_text(const BudgetReach& reach) {
  const char* relation = reach.is_upper ? "at most" : "at least";
  const char* extreme = reach.is_upper ? "smallest" : "largest";
  std::string text = fmt::format("{} {} {}: ", reach.cost, relation, reach.asked);
  if (!reach.alone) {
    return text + (reach.proven ? "no choice of blocks meets the side constraints"
                                : "nothing was found within the time limit");
  }
  if (reach.with_others) {
    text += fmt::format("the {} attainable with the other budgets held is {}", extreme,
                        *reach.with_others);
  } else {
    text += "the other budgets cannot be met even without this one";
  }
  text += fmt::format(", on its own {}", *reach.alone);
  return reach.proven ? text : text + " (time limit: not proven)";
}

}  // namespace

std::string status_name(SolveStatus status) {
  switch (status) {
    case SolveStatus::kOptimal:
      return "optimal";
    case SolveStatus::kFeasible:
      return "feasible";
    case SolveStatus::kInfeasible:
      return "infeasible";
    case SolveStatus::kUnknown:
      return "unknown";
  }
  return "unknown";
}

SolveResult Solver::solve(const Problem& problem, const SolveOptions& options) const {
  check_problem(problem, ErrorKind::kUsage, "problem");
  if (!(options.time_limit_s > 0.0)) {
    fail(ErrorKind::kUsage, "the time limit of the search is {} s, expected more than 0",
         options.time_limit_s);
  }
  const auto start = SolveClock::now();
  const double smallest = std::max(1e-9 * largest_score(problem), 1e-300);
  const double lowest = lowest_objective(problem);
  SolveResult result;
  result.status = SolveStatus::kOptimal;
  std::vector<Assignment> earlier;
  while (static_cast<std::int64_t>(earlier.size()) < problem.num_solutions) {
    begin_solution(options);
    const auto solution_start = SolveClock::now();
    const Answer answer = solve_one(problem, earlier, options);
    if (answer.status == SolveStatus::kInfeasible && earlier.empty()) {
      result.status = SolveStatus::kInfeasible;
      if (options.explain) {
        result.infeasibility = explain(problem, options);
      }
      break;
    }
    if (answer.status == SolveStatus::kInfeasible) {
      result.no_more_solutions = true;
      break;
    }
    if (answer.status == SolveStatus::kUnknown) {
      result.status = earlier.empty() ? SolveStatus::kUnknown : SolveStatus::kFeasible;
      break;
    }
    PUZZLE_CHECK(is_feasible(problem, answer.choices), "solution {} breaks a bound",
                 earlier.size());
    for (const Assignment& other : earlier) {
      PUZZLE_CHECK(count_shared(other, answer.choices) <= max_shared_layers(problem),
                   "solution {} is too close to an earlier one", earlier.size());
    }
    const Evaluation sums = evaluate(problem, answer.choices);
    Solution solution;
    solution.choices = answer.choices;
    solution.objective = sums.objective;
    solution.costs = sums.costs;
    // A time limit may strike before there is a bound.
    solution.bound = std::min(std::max(answer.bound, lowest), sums.objective);
    solution.gap = relative_gap(solution.objective, solution.bound, smallest);
    solution.proven = solution.gap <= kProvenGap;
    solution.seconds = solve_seconds_since(solution_start);
    if (!solution.proven) {
      result.status = SolveStatus::kFeasible;
    }
    earlier.push_back(solution.choices);
    result.solutions.push_back(std::move(solution));
  }
  result.seconds = solve_seconds_since(start);
  return result;
}

BudgetReach Solver::reach(const Problem& problem, std::size_t budget, bool is_upper,
                          const SolveOptions& options) const {
  const Budget& asked = problem.budgets[budget];
  const std::size_t cost = cost_index(problem, asked.cost);
  BudgetReach result;
  result.cost = asked.cost;
  result.is_upper = is_upper;
  result.asked = is_upper ? *asked.at_most : *asked.at_least;
  const auto best = [&](const Problem& reduced) -> std::optional<double> {
    begin_solution(options);
    const Answer answer = solve_one(reduced, {}, options);
    if (answer.status == SolveStatus::kInfeasible) {
      return std::nullopt;
    }
    if (answer.status == SolveStatus::kUnknown) {
      result.proven = false;
      return std::nullopt;
    }
    const Evaluation sums = evaluate(reduced, answer.choices);
    result.proven = result.proven && relative_gap(sums.objective, answer.bound,
                                                  1e-9 * largest_score(reduced)) <= kProvenGap;
    return sums.costs[cost];
  };
  Problem reduced = reach_problem(problem, cost, is_upper);
  Budget& own = reduced.budgets[budget];
  (is_upper ? own.at_most : own.at_least).reset();
  result.with_others = best(reduced);
  reduced.budgets.clear();
  result.alone = best(reduced);
  return result;
}

Infeasibility Solver::explain(const Problem& problem, const SolveOptions& options) const {
  Infeasibility result;
  for (std::size_t b = 0; b < problem.budgets.size(); ++b) {
    if (problem.budgets[b].at_most) {
      result.budgets.push_back(reach(problem, b, true, options));
    }
    if (problem.budgets[b].at_least) {
      result.budgets.push_back(reach(problem, b, false, options));
    }
  }
  for (std::size_t c = 0; c < problem.covers.size(); ++c) {
    Problem without = problem;
    without.covers.erase(without.covers.begin() + static_cast<std::ptrdiff_t>(c));
    begin_solution(options);
    const SolveStatus status = solve_one(without, {}, options).status;
    if (status == SolveStatus::kOptimal || status == SolveStatus::kFeasible) {
      result.covers_in_way.push_back(problem.covers[c].name);
    }
  }
  return result;
}

std::string describe(const Infeasibility& infeasibility) {
  std::vector<std::string> parts;
  parts.reserve(infeasibility.budgets.size() + infeasibility.covers_in_way.size());
  for (const BudgetReach& reach : infeasibility.budgets) {
    parts.push_back(reach_text(reach));
  }
  for (const std::string& cover : infeasibility.covers_in_way) {
    parts.push_back(
        fmt::format("without the side constraint \"{}\" all budgets can be met", cover));
  }
  return parts.empty() ? "the side constraints cannot be met" : join(parts, "; ");
}

std::optional<SolveFailure> solve_failure(const SolveResult& result, const SolveOptions& options) {
  if (result.infeasibility) {
    return SolveFailure{ErrorKind::kInfeasible, describe(*result.infeasibility)};
  }
  if (result.status == SolveStatus::kUnknown) {
    return SolveFailure{
        ErrorKind::kNumeric,
        fmt::format("no solution was found in {:g} s, and none is ruled out; raise the time limit",
                    options.time_limit_s)};
  }
  return std::nullopt;
}

}  // namespace puzzle
