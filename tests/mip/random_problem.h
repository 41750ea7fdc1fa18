// Random small problems and a brute force of its own, independent of the solvers under test.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "puzzle/mip/problem.h"

namespace puzzle::test {

struct RandomProblemOptions {
  int num_layers = 4;
  int max_choices = 4;
  int num_costs = 2;
  bool whole_costs = false;  // bytes-like; else seconds-like
  double tightness = 0.5;    // budget between the least (0) and the most (1) possible sum
  int num_covers = 0;
  std::uint64_t seed = 0;
};

// Costs of different sizes (1e9 bytes beside 1e-3 s), scores from 1e-6 to 10. Every budget is
// exactly the sum of some assignment in every second problem: the case where rounding decides.
inline Problem random_problem(const RandomProblemOptions& options) {
  std::mt19937_64 generator(options.seed * 7919 + 17);
  const auto unit = [&] { return static_cast<double>(generator() >> 11) * 0x1.0p-53; };
  const auto below = [&](int n) { return static_cast<int>(unit() * n); };
  Problem problem;
  for (int k = 0; k < options.num_costs; ++k) {
    problem.cost_names.push_back("cost" + std::to_string(k));
    problem.fixed_costs.push_back(options.whole_costs ? 1000.0 * below(5) : 1e-3 * unit());
  }
  for (int l = 0; l < options.num_layers; ++l) {
    problem.layers.emplace_back();
    const int count = 1 + below(options.max_choices);
    for (int j = 0; j < count; ++j) {
      Choice choice;
      choice.name = "c" + std::to_string(j);
      choice.score = std::pow(10.0, -6.0 + 7.0 * unit());
      for (int k = 0; k < options.num_costs; ++k) {
        const double scale = k % 2 == 0 ? 1e9 : 1e-3;
        const double value =
            options.whole_costs ? 512.0 * below(k % 2 == 0 ? 2'000'000 : 4) : scale * unit();
        choice.costs.push_back(below(8) == 0 ? 0.0 : value);
      }
      problem.layers.back().push_back(std::move(choice));
    }
  }
  for (int k = 0; k < options.num_costs; ++k) {
    double low = problem.fixed_costs[static_cast<std::size_t>(k)];
    double high = low;
    double some = low;
    for (const auto& choices : problem.layers) {
      double least = std::numeric_limits<double>::infinity();
      double most = 0.0;
      for (const Choice& choice : choices) {
        least = std::fmin(least, choice.costs[static_cast<std::size_t>(k)]);
        most = std::fmax(most, choice.costs[static_cast<std::size_t>(k)]);
      }
      low += least;
      high += most;
      const auto pick = static_cast<std::size_t>(below(static_cast<int>(choices.size())));
      some += choices[pick].costs[static_cast<std::size_t>(k)];
    }
    Budget budget;
    budget.cost = problem.cost_names[static_cast<std::size_t>(k)];
    if (k == 2 && generator() % 2 == 0) {
      budget.at_least = low + 0.3 * options.tightness * (high - low);
    } else {
      budget.at_most = options.seed % 2 == 0 ? low + options.tightness * (high - low) : some;
    }
    problem.budgets.push_back(budget);
  }
  for (int c = 0; c < options.num_covers; ++c) {
    CoverConstraint cover;
    cover.name = "cover" + std::to_string(c);
    cover.at_least = 1 + below(2);
    for (const auto& choices : problem.layers) {
      cover.choices_per_layer.emplace_back();
      for (std::size_t j = 0; j < choices.size(); ++j) {
        if (below(3) == 0) {
          cover.choices_per_layer.back().push_back(j);
        }
      }
    }
    problem.covers.push_back(cover);
  }
  return problem;
}

// Lowest sum of `value(layer, choice)` over assignments that meet all budgets except
// `skipped_bound` (2 * budget for its at_most, 2 * budget + 1 for its at_least; -1 for none, -2 for
// all), all covers, and the overlap limit with `earlier`. Plain loops over long double sums.
template <class Value>
std::optional<double> brute_force(const Problem& problem, Value&& value, int skipped_bound = -1,
                                  const std::vector<Assignment>& earlier = {},
                                  std::int64_t max_shared = 0) {
  std::optional<double> best;
  const std::size_t layers = problem.layers.size();
  std::vector<std::size_t> choice(layers, 0);
  while (true) {
    bool fits = true;
    for (std::size_t b = 0; b < problem.budgets.size() && skipped_bound != -2; ++b) {
      std::size_t k = 0;
      while (problem.cost_names[k] != problem.budgets[b].cost) {
        ++k;
      }
      long double sum = problem.fixed_costs.empty() ? 0.0L : problem.fixed_costs[k];
      for (std::size_t l = 0; l < layers; ++l) {
        sum += problem.layers[l][choice[l]].costs[k];
      }
      // A few roundings of a double: far below what a real excess can be in these problems.
      const long double slack = 1e-14L * (sum + 1e-300L);
      const int bound = static_cast<int>(2 * b);
      if (problem.budgets[b].at_most && skipped_bound != bound) {
        fits = fits && sum <= *problem.budgets[b].at_most + slack;
      }
      if (problem.budgets[b].at_least && skipped_bound != bound + 1) {
        fits = fits && sum >= *problem.budgets[b].at_least - slack;
      }
    }
    for (const CoverConstraint& cover : problem.covers) {
      std::int64_t count = 0;
      for (std::size_t l = 0; l < layers; ++l) {
        for (const std::size_t member : cover.choices_per_layer[l]) {
          count += member == choice[l] ? 1 : 0;
        }
      }
      fits = fits && count >= cover.at_least;
    }
    for (const Assignment& other : earlier) {
      std::int64_t shared = 0;
      for (std::size_t l = 0; l < layers; ++l) {
        shared += other[l] == choice[l] ? 1 : 0;
      }
      fits = fits && shared <= max_shared;
    }
    if (fits) {
      double total = 0.0;
      for (std::size_t l = 0; l < layers; ++l) {
        total += value(l, choice[l]);
      }
      if (!best || total < *best) {
        best = total;
      }
    }
    std::size_t l = 0;
    while (l < layers && ++choice[l] == problem.layers[l].size()) {
      choice[l++] = 0;
    }
    if (l == layers) {
      return best;
    }
  }
}

inline std::optional<double> brute_force_score(const Problem& problem,
                                               const std::vector<Assignment>& earlier = {},
                                               std::int64_t max_shared = 0) {
  return brute_force(
      problem, [&](std::size_t l, std::size_t j) { return problem.layers[l][j].score; }, -1,
      earlier, max_shared);
}

// The shape of a 70B search: `layers` × 54 choices (6 attention × 9 FFN variants), three dense
// budgets (bytes, prefill seconds, seconds per token) at about 60 % of the parent's. Damage grows
// with what is cut and differs between layers; `cost_noise` is how far times of one shape differ
// between layers (0: every shape is measured once).
inline Problem large_problem(int layers, std::uint64_t seed, double cost_noise = 0.05) {
  std::mt19937_64 generator(seed);
  const auto unit = [&] { return static_cast<double>(generator() >> 11) * 0x1.0p-53; };
  const std::vector<double> attention = {1.0, 0.5, 0.25, 0.125, 0.1, 0.0};
  const std::vector<double> ffn = {1.0, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1, 0.05, 0.0};
  Problem problem;
  problem.cost_names = {"memory_bytes", "prefill_s", "step_s"};
  problem.fixed_costs = {2.1e9, 4e-3, 1e-3};
  for (int l = 0; l < layers; ++l) {
    problem.layers.emplace_back();
    const double attention_damage = 0.02 * std::exp(2.0 * unit() - 1.0);
    const double ffn_damage = 0.05 * std::exp(2.0 * unit() - 1.0);
    for (std::size_t a = 0; a < attention.size(); ++a) {
      for (std::size_t f = 0; f < ffn.size(); ++f) {
        const bool is_parent = a == 0 && f == 0;
        Choice choice;
        choice.name = "a" + std::to_string(a) + "+f" + std::to_string(f);
        choice.score = is_parent ? 0.0
                                 : (attention_damage * std::pow(1.0 - attention[a], 1.5) +
                                    ffn_damage * std::pow(1.0 - ffn[f], 2.0)) *
                                       (0.8 + 0.4 * unit());
        choice.costs = {
            std::round(1.7e8 + 3.0e8 * attention[a]) * (attention[a] > 0.0 ? 1.0 : 0.0) +
                std::round(1.4e9 * ffn[f]),
            1e-3 * (0.9 * attention[a] + 2.8 * ffn[f] + cost_noise * unit()),
            1e-4 * (0.7 * attention[a] + 1.9 * ffn[f] + cost_noise * unit())};
        problem.layers.back().push_back(std::move(choice));
      }
    }
  }
  for (std::size_t k = 0; k < problem.cost_names.size(); ++k) {
    double parent = problem.fixed_costs[k];
    for (const auto& choices : problem.layers) {
      parent += choices.front().costs[k];
    }
    Budget budget;
    budget.cost = problem.cost_names[k];
    budget.at_most = parent * (0.58 + 0.02 * static_cast<double>(k));
    problem.budgets.push_back(budget);
  }
  return problem;
}

}  // namespace puzzle::test
