#include "puzzle/mip/baselines.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "puzzle/base/hash.h"

namespace puzzle {
namespace {

constexpr int kRandomDraws = 10'000;
constexpr std::size_t kWalkStepsPerLayer = 200;

Solution rule_solution(const Problem& problem, Assignment choices) {
  Evaluation sums = evaluate(problem, choices);
  Solution solution;
  solution.choices = std::move(choices);
  solution.objective = sums.objective;
  solution.costs = std::move(sums.costs);
  solution.bound = solution.objective;
  return solution;
}

std::vector<std::size_t> layers_by_mean_score(const Problem& problem) {
  std::vector<double> mean;
  for (const auto& choices : problem.layers) {
    double sum = 0.0;
    for (const Choice& choice : choices) {
      sum += choice.score;
    }
    mean.push_back(sum / static_cast<double>(choices.size()));
  }
  std::vector<std::size_t> order(problem.layers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return mean[a] < mean[b]; });
  return order;
}

bool contains_choice(const CoverConstraint& cover, std::size_t layer, std::size_t choice) {
  const auto& members = cover.choices_per_layer[layer];
  return std::find(members.begin(), members.end(), choice) != members.end();
}

// An upper bound while it is handed through the layers.
struct GreedyShare {
  std::size_t cost = 0;
  double per_layer = 0.0;
  double available = 0.0;  // share of the layer at hand plus what earlier ones left
};

std::vector<GreedyShare> equal_shares(const Problem& problem) {
  std::vector<GreedyShare> shares;
  for (const Budget& budget : problem.budgets) {
    if (budget.at_most) {
      const std::size_t cost = cost_index(problem, budget.cost);
      const double whole = *budget.at_most - fixed_cost(problem, cost);
      shares.push_back({.cost = cost,
                        .per_layer = whole / static_cast<double>(problem.layers.size()),
                        .available = 0.0});
    }
  }
  return shares;
}

// Choices of the layer order[position]; fewer where a cover needs every layer that is left.
std::vector<std::size_t> allowed_choices(const Problem& problem,
                                         const std::vector<std::size_t>& order,
                                         std::size_t position, const Assignment& chosen) {
  const std::size_t layer = order[position];
  std::vector<std::size_t> allowed(problem.layers[layer].size());
  std::iota(allowed.begin(), allowed.end(), std::size_t{0});
  for (const CoverConstraint& cover : problem.covers) {
    std::int64_t missing = cover.at_least;
    for (std::size_t p = 0; p < position; ++p) {
      missing -= contains_choice(cover, order[p], chosen[order[p]]) ? 1 : 0;
    }
    std::int64_t able = 0;
    for (std::size_t p = position; p < order.size(); ++p) {
      able += cover.choices_per_layer[order[p]].empty() ? 0 : 1;
    }
    const auto serves = [&](std::size_t j) { return contains_choice(cover, layer, j); };
    if (missing > 0 && missing >= able && std::any_of(allowed.begin(), allowed.end(), serves)) {
      std::erase_if(allowed, [&](std::size_t j) { return !serves(j); });
    }
  }
  return allowed;
}

// Lowest score among those that fit every share; else the least overshoot, relative to the share.
std::size_t greedy_choice(const std::vector<Choice>& choices,
                          const std::vector<std::size_t>& allowed,
                          const std::vector<GreedyShare>& shares) {
  std::size_t best = allowed.front();
  double best_overshoot = std::numeric_limits<double>::infinity();
  for (const std::size_t j : allowed) {
    double overshoot = 0.0;
    for (const GreedyShare& share : shares) {
      const double excess = choices[j].costs[share.cost] - share.available;
      if (!is_at_most(choices[j].costs[share.cost], share.available)) {
        overshoot = std::max(overshoot, excess / std::max(std::abs(share.per_layer), 1e-300));
      }
    }
    if (overshoot < best_overshoot ||
        (overshoot <= best_overshoot && choices[j].score < choices[best].score)) {
      best = j;
      best_overshoot = overshoot;
    }
  }
  return best;
}

std::size_t draw_below(std::mt19937_64& generator, std::size_t count) {
  // std::uniform_int_distribution differs between libraries; this does not.
  const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() / count * count;
  std::uint64_t value = generator();
  while (value >= limit) {
    value = generator();
  }
  return static_cast<std::size_t>(value % count);
}

double draw_unit(std::mt19937_64& generator) {
  return static_cast<double>(generator() >> 11) * 0x1.0p-53;
}

// Metropolis walk with symmetric proposals: uniform over the feasible assignments it connects.
Assignment walk_from(const Problem& problem, Assignment start, std::mt19937_64& generator) {
  const std::size_t layers = problem.layers.size();
  for (std::size_t step = 0; step < kWalkStepsPerLayer * layers; ++step) {
    Assignment proposal = start;
    const std::size_t num_changes = 1 + draw_below(generator, 2);
    for (std::size_t change = 0; change < num_changes; ++change) {
      const std::size_t layer = draw_below(generator, layers);
      proposal[layer] = draw_below(generator, problem.layers[layer].size());
    }
    if (is_feasible(problem, proposal)) {
      start = std::move(proposal);
    }
  }
  return start;
}

// The layer's choice of that name, or its only choice.
std::optional<Assignment> uniform_assignment(const Problem& problem, const std::string& name) {
  Assignment assignment;
  for (const auto& choices : problem.layers) {
    const auto found =
        choices.size() == 1
            ? choices.begin()
            : std::find_if(choices.begin(), choices.end(),
                           [&](const Choice& choice) { return choice.name == name; });
    if (found == choices.end()) {
      return std::nullopt;
    }
    assignment.push_back(static_cast<std::size_t>(found - choices.begin()));
  }
  return assignment;
}

}  // namespace

std::optional<Solution> solve_greedy(const Problem& problem) {
  check_problem(problem, ErrorKind::kUsage, "problem");
  std::vector<GreedyShare> shares = equal_shares(problem);
  const std::vector<std::size_t> order = layers_by_mean_score(problem);
  Assignment chosen(problem.layers.size(), 0);
  for (std::size_t position = 0; position < order.size(); ++position) {
    const std::size_t layer = order[position];
    for (GreedyShare& share : shares) {
      share.available += share.per_layer;
    }
    chosen[layer] = greedy_choice(problem.layers[layer],
                                  allowed_choices(problem, order, position, chosen), shares);
    for (GreedyShare& share : shares) {
      share.available -= problem.layers[layer][chosen[layer]].costs[share.cost];
    }
  }
  if (!is_feasible(problem, chosen)) {
    return std::nullopt;
  }
  return rule_solution(problem, std::move(chosen));
}

SolveResult solve_max_cost(const Solver& solver, const Problem& problem, const std::string& cost,
                           const SolveOptions& options) {
  check_problem(problem, ErrorKind::kUsage, "problem");
  const std::size_t index = cost_index(problem, cost);
  Problem other = problem;
  for (auto& choices : other.layers) {
    for (Choice& choice : choices) {
      choice.score = -choice.costs[index];
    }
  }
  SolveResult result = solver.solve(other, options);
  for (Solution& solution : result.solutions) {
    solution.objective = evaluate(problem, solution.choices).objective;
  }
  return result;
}

std::optional<Solution> solve_random(const Solver& solver, const Problem& problem,
                                     std::uint64_t seed, const SolveOptions& options) {
  check_problem(problem, ErrorKind::kUsage, "problem");
  std::mt19937_64 generator(derive_seed(seed, "search/random"));
  Assignment draw(problem.layers.size());
  for (int attempt = 0; attempt < kRandomDraws; ++attempt) {
    for (std::size_t l = 0; l < draw.size(); ++l) {
      draw[l] = draw_below(generator, problem.layers[l].size());
    }
    if (is_feasible(problem, draw)) {
      return rule_solution(problem, std::move(draw));
    }
  }
  Problem other = problem;
  other.num_solutions = 1;
  for (auto& choices : other.layers) {
    for (Choice& choice : choices) {
      choice.score = draw_unit(generator);
    }
  }
  SolveOptions quick = options;
  quick.explain = false;
  const SolveResult start = solver.solve(other, quick);
  if (start.solutions.empty()) {
    return std::nullopt;
  }
  return rule_solution(problem, walk_from(problem, start.solutions.front().choices, generator));
}

std::vector<Solution> solve_uniform(const Problem& problem) {
  check_problem(problem, ErrorKind::kUsage, "problem");
  std::vector<Solution> found;
  // A layer with several choices names all candidates; without one there is a single assignment.
  const auto widest =
      std::max_element(problem.layers.begin(), problem.layers.end(),
                       [](const auto& a, const auto& b) { return a.size() < b.size(); });
  for (const Choice& candidate : *widest) {
    std::optional<Assignment> assignment = uniform_assignment(problem, candidate.name);
    if (assignment && is_feasible(problem, *assignment)) {
      found.push_back(rule_solution(problem, std::move(*assignment)));
    }
  }
  std::ranges::stable_sort(found, {}, &Solution::objective);
  if (std::ssize(found) > problem.num_solutions) {
    found.resize(static_cast<std::size_t>(problem.num_solutions));
  }
  return found;
}

}  // namespace puzzle
