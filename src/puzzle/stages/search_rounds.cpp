#include "puzzle/stages/search_rounds.h"

#include <algorithm>
#include <cmath>

#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"

namespace puzzle {

namespace {

// One swap by the scores and as estimated around the child.
struct SwapEvidence {
  double prior = 0.0;
  double size = 0.0;  // the larger of the two scores
  ScoreValue estimate;

  [[nodiscard]] double surprise() const { return estimate.value - prior; }
  [[nodiscard]] double noise() const { return estimate.standard_error * estimate.standard_error; }
};

SwapEvidence evidence_of(const std::vector<Choice>& choices, std::size_t own, std::size_t choice,
                         const std::map<std::string, ScoreValue>& changes) {
  const double before = choices[own].score;
  const double after = choices[choice].score;
  return {.prior = after - before,
          .size = std::max(std::abs(before), std::abs(after)),
          .estimate = changes.at(choices[choice].name)};
}

// τ² = factor · size².
double surroundings(const Problem& problem, const BlockChanges& changes, const Assignment& child) {
  double beyond_noise = 0.0;
  double sizes = 0.0;
  for (std::size_t layer = 0; layer < child.size(); ++layer) {
    const std::vector<Choice>& choices = problem.layers[layer];
    for (std::size_t c = 0; c < choices.size(); ++c) {
      const SwapEvidence swap = evidence_of(choices, child[layer], c, changes.at(layer));
      if (c != child[layer] && swap.size <= kSecondOrderLimit) {
        beyond_noise += swap.surprise() * swap.surprise() - swap.noise();
        sizes += swap.size * swap.size;
      }
    }
  }
  return sizes > 0.0 ? std::max(0.0, beyond_noise / sizes) : 0.0;
}

double believed_change(const SwapEvidence& swap, double factor) {
  const double truth = factor * swap.size * swap.size;
  const double share = truth + swap.noise() > 0.0 ? truth / (truth + swap.noise()) : 1.0;
  const double change = swap.prior + share * swap.surprise();
  return swap.prior > kSecondOrderLimit ? std::max(change, swap.prior) : change;
}

}  // namespace

Problem with_changes(const Problem& problem, const BlockChanges& changes, const Assignment& child) {
  const double factor = surroundings(problem, changes, child);
  log_debug("search: around the child swaps differ from their scores by {:.2f} of their size",
            std::sqrt(factor));
  Problem result = problem;
  for (std::size_t layer = 0; layer < child.size(); ++layer) {
    const std::vector<Choice>& choices = problem.layers[layer];
    for (std::size_t c = 0; c < choices.size(); ++c) {
      result.layers[layer][c].score =
          c == child[layer]
              ? 0.0
              : believed_change(evidence_of(choices, child[layer], c, changes.at(layer)), factor);
    }
  }
  return result;
}

Problem part_of_the_way(const Problem& problem, const Assignment& from, double share) {
  Problem result = problem;
  const Evaluation start = evaluate(problem, from);
  for (Budget& budget : result.budgets) {
    const double cost = start.costs[cost_index(problem, budget.cost)];
    if (budget.at_most && *budget.at_most < cost && share < 1.0) {
      budget.at_most = cost * std::pow(*budget.at_most / cost, share);
    }
    if (budget.at_least && share < 1.0) {
      budget.at_least = std::min(*budget.at_least, cost);
    }
  }
  return result;
}

Problem near_to(const Problem& problem, const Assignment& child, std::int64_t layers) {
  Problem result = problem;
  const std::int64_t unchanged = std::ssize(child) - layers;
  if (unchanged >= 1) {
    CoverConstraint cover{"layers that stay as they are", {}, unchanged};
    for (const std::size_t choice : child) {
      cover.choices_per_layer.push_back({choice});
    }
    result.covers.push_back(std::move(cover));
  }
  return result;
}

std::optional<Assignment> search_in_rounds(const Problem& problem, const Assignment& start,
                                           const RoundOptions& options,
                                           const ChangesAround& changes,
                                           const SolveProblem& solve) {
  const std::int64_t num_layers = std::ssize(start);
  const std::int64_t share = (2 * num_layers + options.rounds - 1) / options.rounds;
  Assignment child = start;
  Progress progress("search: rounds", options.rounds, "rounds");
  for (std::int64_t round = 1; round <= options.rounds; ++round) {
    Problem scored = round == 1 ? problem : with_changes(problem, changes(child), child);
    scored = part_of_the_way(scored, start,
                             static_cast<double>(round) / static_cast<double>(options.rounds));
    std::int64_t layers = options.round_layers > 0 ? options.round_layers : share;
    std::optional<Assignment> next = solve(near_to(scored, child, layers));
    while (!next && layers < num_layers) {
      layers = std::min(2 * layers, num_layers);
      next = solve(near_to(scored, child, layers));
    }
    if (!next) {
      return std::nullopt;
    }
    log_debug("search: round {} of {} changes {} layers, predicted {:+.4f} nats", round,
              options.rounds, num_layers - count_shared(*next, child),
              evaluate(scored, *next).objective - evaluate(scored, child).objective);
    child = *std::move(next);
    progress.advance();
  }
  return child;
}

}  // namespace puzzle
