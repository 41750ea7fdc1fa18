#include "puzzle/mip/problem.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

// Sums of up to thousands of doubles are rounded by less than this.
constexpr double kSumRounding = 1e-12;
constexpr std::size_t kMaxLayers = 100'000;
constexpr std::size_t kMaxChoices = 10'000'000;

bool is_size(double value) { return std::isfinite(value) && value >= 0.0; }

void check_choice(const Problem& problem, const Choice& choice, ErrorKind kind,
                  const std::string& place) {
  if (choice.costs.size() != problem.cost_names.size()) {
    fail(kind, "{}: found {} costs, expected {} ({})", place, choice.costs.size(),
         problem.cost_names.size(), join(problem.cost_names, ", "));
  }
  if (!std::isfinite(choice.score)) {
    fail(kind, "{}: the score is {}, expected a finite number", place, choice.score);
  }
  for (std::size_t k = 0; k < choice.costs.size(); ++k) {
    if (!is_size(choice.costs[k])) {
      fail(kind, "{}: the cost {} is {}, expected a finite number of at least 0", place,
           problem.cost_names[k], choice.costs[k]);
    }
  }
}

void check_layers(const Problem& problem, ErrorKind kind, const std::string& place) {
  if (problem.layers.empty() || problem.layers.size() > kMaxLayers) {
    fail(kind, "{}: found {} layers, expected 1 to {}", place, problem.layers.size(), kMaxLayers);
  }
  std::size_t total = 0;
  for (std::size_t l = 0; l < problem.layers.size(); ++l) {
    total += problem.layers[l].size();
    if (problem.layers[l].empty() || total > kMaxChoices) {
      fail(kind, "{}: layer {} has {} choices, expected at least 1 and at most {} in all layers",
           place, l, problem.layers[l].size(), kMaxChoices);
    }
    std::set<std::string> names;
    for (const Choice& choice : problem.layers[l]) {
      const std::string where = fmt::format("{}: layer {}, choice \"{}\"", place, l, choice.name);
      check_choice(problem, choice, kind, where);
      if (!names.insert(choice.name).second) {
        fail(kind, "{}: the name stands twice in the layer", where);
      }
    }
  }
}

void check_bound(const std::optional<double>& bound, const char* name, const Budget& budget,
                 ErrorKind kind, const std::string& place) {
  if (bound && !is_size(*bound)) {
    fail(kind, "{}: the budget of {}: {} is {}, expected a finite number of at least 0", place,
         budget.cost, name, *bound);
  }
}

void check_budgets(const Problem& problem, ErrorKind kind, const std::string& place) {
  std::set<std::string> seen;
  for (const Budget& budget : problem.budgets) {
    const auto& names = problem.cost_names;
    if (std::find(names.begin(), names.end(), budget.cost) == names.end()) {
      const std::string close = nearest(budget.cost, names);
      fail(kind, "{}: the budget of {}: no choice has such a cost{}", place, budget.cost,
           close.empty() ? "; known are " + join(names, ", ") : "; did you mean " + close + "?");
    }
    if (!seen.insert(budget.cost).second) {
      fail(kind, "{}: the budget of {} stands twice; keep the tighter one", place, budget.cost);
    }
    if (!budget.at_most && !budget.at_least) {
      fail(kind, "{}: the budget of {} has neither at_most nor at_least", place, budget.cost);
    }
    check_bound(budget.at_most, "at_most", budget, kind, place);
    check_bound(budget.at_least, "at_least", budget, kind, place);
    if (budget.at_most && budget.at_least && *budget.at_least > *budget.at_most) {
      fail(kind, "{}: the budget of {}: at_least {} is above at_most {}", place, budget.cost,
           *budget.at_least, *budget.at_most);
    }
  }
}

void check_covers(const Problem& problem, ErrorKind kind, const std::string& place) {
  std::set<std::string> seen;
  for (const CoverConstraint& cover : problem.covers) {
    const std::string where = fmt::format("{}: cover \"{}\"", place, cover.name);
    if (!seen.insert(cover.name).second) {
      fail(kind, "{}: the name stands twice", where);
    }
    if (cover.at_least < 1) {
      fail(kind, "{}: at_least is {}, expected at least 1", where, cover.at_least);
    }
    if (cover.choices_per_layer.size() != problem.layers.size()) {
      fail(kind, "{}: found lists for {} layers, expected {}", where,
           cover.choices_per_layer.size(), problem.layers.size());
    }
    for (std::size_t l = 0; l < problem.layers.size(); ++l) {
      std::set<std::size_t> members;
      for (const std::size_t j : cover.choices_per_layer[l]) {
        if (j >= problem.layers[l].size() || !members.insert(j).second) {
          fail(kind, "{}: layer {}: choice index {} is out of range or stands twice", where, l, j);
        }
      }
    }
  }
}

bool meets_cover(const CoverConstraint& cover, const Assignment& assignment) {
  std::int64_t count = 0;
  for (std::size_t l = 0; l < assignment.size(); ++l) {
    const auto& members = cover.choices_per_layer[l];
    count += std::find(members.begin(), members.end(), assignment[l]) != members.end() ? 1 : 0;
  }
  return count >= cover.at_least;
}

}  // namespace

void check_problem(const Problem& problem, ErrorKind kind, const std::string& place) {
  const std::set<std::string> names(problem.cost_names.begin(), problem.cost_names.end());
  if (names.size() != problem.cost_names.size()) {
    fail(kind, "{}: a cost name stands twice in {}", place, join(problem.cost_names, ", "));
  }
  check_layers(problem, kind, place);
  if (!problem.fixed_costs.empty() && problem.fixed_costs.size() != problem.cost_names.size()) {
    fail(kind, "{}: found {} fixed costs, expected {}", place, problem.fixed_costs.size(),
         problem.cost_names.size());
  }
  for (std::size_t k = 0; k < problem.fixed_costs.size(); ++k) {
    if (!is_size(problem.fixed_costs[k])) {
      fail(kind, "{}: the fixed cost {} is {}, expected a finite number of at least 0", place,
           problem.cost_names[k], problem.fixed_costs[k]);
    }
  }
  check_budgets(problem, kind, place);
  check_covers(problem, kind, place);
  if (problem.num_solutions < 1 || problem.num_solutions > 10'000) {
    fail(kind, "{}: {} solutions are asked for, expected 1 to 10000", place, problem.num_solutions);
  }
  if (!(problem.max_shared_fraction >= 0.0 && problem.max_shared_fraction <= 1.0)) {
    fail(kind, "{}: max_shared_fraction is {}, expected 0 to 1", place,
         problem.max_shared_fraction);
  }
}

std::size_t cost_index(const Problem& problem, const std::string& cost) {
  const auto& names = problem.cost_names;
  const auto found = std::find(names.begin(), names.end(), cost);
  if (found == names.end()) {
    fail(ErrorKind::kUsage, "there is no cost {}; known are {}", cost, join(names, ", "));
  }
  return static_cast<std::size_t>(found - names.begin());
}

double fixed_cost(const Problem& problem, std::size_t cost) {
  return problem.fixed_costs.empty() ? 0.0 : problem.fixed_costs[cost];
}

Evaluation evaluate(const Problem& problem, const Assignment& assignment) {
  PUZZLE_CHECK(assignment.size() == problem.layers.size(), "{} choices for {} layers",
               assignment.size(), problem.layers.size());
  Evaluation result;
  result.costs.resize(problem.cost_names.size());
  for (std::size_t k = 0; k < result.costs.size(); ++k) {
    result.costs[k] = fixed_cost(problem, k);
  }
  for (std::size_t l = 0; l < assignment.size(); ++l) {
    const Choice& choice = problem.layers[l].at(assignment[l]);
    result.objective += choice.score;
    for (std::size_t k = 0; k < result.costs.size(); ++k) {
      result.costs[k] += choice.costs[k];
    }
  }
  return result;
}

bool is_at_most(double sum, double bound) {
  return sum <= bound + kSumRounding * std::max(std::abs(sum), std::abs(bound));
}

bool is_feasible(const Problem& problem, const Assignment& assignment) {
  const Evaluation sums = evaluate(problem, assignment);
  for (const Budget& budget : problem.budgets) {
    const double sum = sums.costs[cost_index(problem, budget.cost)];
    if ((budget.at_most && !is_at_most(sum, *budget.at_most)) ||
        (budget.at_least && !is_at_most(*budget.at_least, sum))) {
      return false;
    }
  }
  return std::all_of(problem.covers.begin(), problem.covers.end(),
                     [&](const CoverConstraint& cover) { return meets_cover(cover, assignment); });
}

std::int64_t count_shared(const Assignment& a, const Assignment& b) {
  PUZZLE_CHECK(a.size() == b.size(), "{} and {} layers", a.size(), b.size());
  std::int64_t count = 0;
  for (std::size_t l = 0; l < a.size(); ++l) {
    count += a[l] == b[l] ? 1 : 0;
  }
  return count;
}

std::int64_t max_shared_layers(const Problem& problem) {
  const auto layers = static_cast<double>(problem.layers.size());
  // 0.29 * 100 is 28.999999999999996 in doubles and means 29.
  const auto shared = static_cast<std::int64_t>(
      std::floor(problem.max_shared_fraction * layers * (1.0 + kSumRounding)));
  return std::min(shared, static_cast<std::int64_t>(problem.layers.size()) - 1);
}

std::vector<std::string> choice_names(const Problem& problem, const Assignment& assignment) {
  std::vector<std::string> names;
  names.reserve(assignment.size());
  for (std::size_t l = 0; l < assignment.size(); ++l) {
    names.push_back(problem.layers[l].at(assignment[l]).name);
  }
  return names;
}

Problem restrict_choices(const Problem& problem,
                         const std::function<bool(std::size_t, const Choice&)>& keep) {
  Problem result = problem;
  for (std::size_t l = 0; l < problem.layers.size(); ++l) {
    result.layers[l].clear();
    for (CoverConstraint& cover : result.covers) {
      cover.choices_per_layer[l].clear();
    }
    for (std::size_t j = 0; j < problem.layers[l].size(); ++j) {
      if (!keep(l, problem.layers[l][j])) {
        continue;
      }
      for (std::size_t c = 0; c < problem.covers.size(); ++c) {
        const auto& members = problem.covers[c].choices_per_layer[l];
        if (std::find(members.begin(), members.end(), j) != members.end()) {
          result.covers[c].choices_per_layer[l].push_back(result.layers[l].size());
        }
      }
      result.layers[l].push_back(problem.layers[l][j]);
    }
    if (result.layers[l].empty()) {
      fail(ErrorKind::kUsage, "layer {}: none of its {} choices is in the restricted search space",
           l, problem.layers[l].size());
    }
  }
  return result;
}

}  // namespace puzzle
