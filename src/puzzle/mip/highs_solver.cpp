// How a problem becomes numbers that a solver with absolute tolerances treats well:
// - in every layer the smallest cost of a budget is taken off all choices (exactly one is taken, so
//   it is a constant), likewise the smallest score;
// - choices that break a budget whatever the other layers do are left out;
// - whole numbers (bytes, parameters) are divided by their greatest common divisor, everything is
//   then scaled to coefficients of about 1;
// - an objective that turns out tiny beside the scores (a good child among terrible choices) is
//   solved again without the choices that cost more than the whole answer, scaled to the answer.
//
// An answer is then tested in the original numbers. If it oversteps a budget by the solver's
// tolerance it is cut off and the problem solved again; if that goes on, the row is tightened.
#include "puzzle/mip/highs_solver.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "puzzle/mip/highs_model.h"

namespace puzzle {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kHighsGap = 1e-8;       // asked of HiGHS; kProvenGap is what counts
constexpr double kObjectiveScale = 1e3;  // largest scaled score, or scaled objective
constexpr double kSmallObjective = 1.0;  // a scaled objective below this is solved again
constexpr double kWholeLimit = 9e15;     // doubles hold all whole numbers below
constexpr int kMaxCutAnswers = 8;        // before rows are tightened instead
constexpr int kMaxTightenings = 6;

using AliveChoices = std::vector<std::vector<std::size_t>>;  // per layer, ascending

// A budget as a row over shifted costs c' = cost - base of the layer.
struct BudgetRow {
  std::size_t cost = 0;
  std::vector<double> base;  // per layer
  double lower = -kInfinite;
  double upper = kInfinite;  // both on the sum of c', before `factor`
  double factor = 1.0;       // c' and bounds are multiplied by it
  int row = -1;              // in the model; -1 if the row has no coefficient
};

double layer_extreme(const Problem& problem, const AliveChoices& alive, std::size_t layer,
                     std::size_t cost, bool largest) {
  double extreme = largest ? 0.0 : kInfinite;
  for (const std::size_t j : alive[layer]) {
    const double value = problem.layers[layer][j].costs[cost];
    extreme = largest ? std::max(extreme, value) : std::min(extreme, value);
  }
  return extreme;
}

// Leaves out choices that break one bound even beside the best of all other layers. Returns whether
// anything changed; a layer may end empty.
bool prune_bound(const Problem& problem, std::size_t cost, double bound, bool is_upper,
                 AliveChoices* alive) {
  double total = fixed_cost(problem, cost);
  std::vector<double> best(alive->size());
  for (std::size_t l = 0; l < alive->size(); ++l) {
    best[l] = layer_extreme(problem, *alive, l, cost, !is_upper);
    total += best[l];
  }
  bool changed = false;
  for (std::size_t l = 0; l < alive->size(); ++l) {
    const auto erased = std::erase_if((*alive)[l], [&](std::size_t j) {
      const double sum = total - best[l] + problem.layers[l][j].costs[cost];
      // Twice the rounding that is_at_most allows: when in doubt the choice stays.
      const double doubt = 1e-12 * std::max(std::abs(sum), std::abs(bound));
      return is_upper ? !is_at_most(sum - doubt, bound) : !is_at_most(bound, sum + doubt);
    });
    changed = changed || erased > 0;
  }
  return changed;
}

bool has_empty_layer(const AliveChoices& alive) {
  return std::any_of(alive.begin(), alive.end(), [](const auto& layer) { return layer.empty(); });
}

// Empty layers in the result mean: infeasible.
AliveChoices alive_choices(const Problem& problem) {
  AliveChoices alive(problem.layers.size());
  for (std::size_t l = 0; l < alive.size(); ++l) {
    alive[l].resize(problem.layers[l].size());
    std::iota(alive[l].begin(), alive[l].end(), std::size_t{0});
  }
  bool changed = true;
  while (changed && !has_empty_layer(alive)) {
    changed = false;
    for (const Budget& budget : problem.budgets) {
      const std::size_t cost = cost_index(problem, budget.cost);
      if (budget.at_most && !has_empty_layer(alive)) {
        changed = prune_bound(problem, cost, *budget.at_most, true, &alive) || changed;
      }
      if (budget.at_least && !has_empty_layer(alive)) {
        changed = prune_bound(problem, cost, *budget.at_least, false, &alive) || changed;
      }
    }
  }
  return alive;
}

// Greatest common divisor of the shifted costs if all are whole numbers, else 0.
double common_divisor(const Problem& problem, const AliveChoices& alive, const BudgetRow& row) {
  std::int64_t divisor = 0;
  for (std::size_t l = 0; l < alive.size(); ++l) {
    for (const std::size_t j : alive[l]) {
      const double value = problem.layers[l][j].costs[row.cost] - row.base[l];
      if (value > kWholeLimit || std::floor(value) != value) {
        return 0.0;
      }
      divisor = std::gcd(divisor, static_cast<std::int64_t>(value));
    }
  }
  return static_cast<double>(divisor);
}

BudgetRow make_budget_row(const Problem& problem, const AliveChoices& alive, const Budget& budget) {
  BudgetRow row;
  row.cost = cost_index(problem, budget.cost);
  double constant = fixed_cost(problem, row.cost);
  double largest = 0.0;
  for (std::size_t l = 0; l < alive.size(); ++l) {
    row.base.push_back(layer_extreme(problem, alive, l, row.cost, false));
    constant += row.base.back();
    largest = std::max(largest, layer_extreme(problem, alive, l, row.cost, true) - row.base.back());
  }
  // The rounding that is_at_most allows, so that a sum exactly on the bound stays inside.
  constexpr double kRounding = 1e-12;
  if (budget.at_most) {
    row.upper = *budget.at_most * (1.0 + kRounding) - constant;
  }
  if (budget.at_least) {
    row.lower = *budget.at_least * (1.0 - kRounding) - constant;
  }
  if (largest <= 0.0) {
    return row;
  }
  const double divisor = common_divisor(problem, alive, row);
  if (divisor > 0.0) {
    const double doubt = 1e-12 * std::abs(constant) / divisor;
    row.upper = std::floor(row.upper / divisor + doubt) * divisor;
    row.lower = std::ceil(row.lower / divisor - doubt) * divisor;
  }
  // A power of two: coefficients keep their bits.
  row.factor = std::exp2(-std::ceil(std::log2(largest)));
  return row;
}

// The model of one problem over its alive choices.
class SearchModel {
 public:
  SearchModel(const Problem& problem, const std::vector<Assignment>& earlier, AliveChoices alive,
              double score_factor)
      : problem_(problem), alive_(std::move(alive)), score_factor_(score_factor) {
    add_layers();
    for (const Budget& budget : problem.budgets) {
      add_budget(budget);
    }
    for (const CoverConstraint& cover : problem.covers) {
      add_cover(cover);
    }
    for (const Assignment& other : earlier) {
      add_overlap(other, static_cast<double>(max_shared_layers(problem)));
    }
  }

  // Sum over layers of the smallest alive score.
  [[nodiscard]] double score_base() const { return score_base_; }
  [[nodiscard]] double bound_of(const HighsModel::Outcome& outcome) const {
    return score_base_ + outcome.bound / score_factor_;
  }
  [[nodiscard]] HighsModel::Outcome run(double time_limit_s) {
    return model_.run(time_limit_s, kHighsGap);
  }

  [[nodiscard]] Assignment assignment_of(const std::vector<double>& values) const {
    Assignment assignment(alive_.size());
    for (std::size_t l = 0; l < alive_.size(); ++l) {
      std::size_t best = 0;
      for (std::size_t i = 1; i < alive_[l].size(); ++i) {
        if (values[columns_[l][i]] > values[columns_[l][best]]) {
          best = i;
        }
      }
      assignment[l] = alive_[l][best];
    }
    return assignment;
  }

  // At most `shared` layers equal `other`.
  void add_overlap(const Assignment& other, double shared) {
    std::vector<int> columns;
    for (std::size_t l = 0; l < alive_.size(); ++l) {
      const auto found = std::lower_bound(alive_[l].begin(), alive_[l].end(), other[l]);
      if (found != alive_[l].end() && *found == other[l]) {
        columns.push_back(columns_[l][static_cast<std::size_t>(found - alive_[l].begin())]);
      }
    }
    model_.add_row(-kInfinite, shared, columns, std::vector<double>(columns.size(), 1.0));
    ++num_rows_;
  }

  // Moves every bound that `assignment` oversteps inwards by twice the overstep.
  void tighten(const Assignment& assignment) {
    for (BudgetRow& row : budget_rows_) {
      double sum = 0.0;
      for (std::size_t l = 0; l < assignment.size(); ++l) {
        sum += problem_.layers[l][assignment[l]].costs[row.cost] - row.base[l];
      }
      if (row.row < 0 || (sum <= row.upper && sum >= row.lower)) {
        continue;
      }
      row.upper -= 2.0 * std::max(0.0, sum - row.upper);
      row.lower += 2.0 * std::max(0.0, row.lower - sum);
      model_.change_row_bounds(row.row, row.lower * row.factor, row.upper * row.factor);
    }
  }

 private:
  void add_layers() {
    for (std::size_t l = 0; l < alive_.size(); ++l) {
      double smallest = kInfinite;
      for (const std::size_t j : alive_[l]) {
        smallest = std::min(smallest, problem_.layers[l][j].score);
      }
      score_base_ += smallest;
      columns_.emplace_back();
      for (const std::size_t j : alive_[l]) {
        const double score = (problem_.layers[l][j].score - smallest) * score_factor_;
        columns_.back().push_back(model_.add_binary(score));
      }
      model_.add_row(1.0, 1.0, columns_[l], std::vector<double>(columns_[l].size(), 1.0));
      ++num_rows_;
    }
  }

  void add_budget(const Budget& budget) {
    BudgetRow row = make_budget_row(problem_, alive_, budget);
    std::vector<int> columns;
    std::vector<double> values;
    for (std::size_t l = 0; l < alive_.size(); ++l) {
      for (std::size_t i = 0; i < alive_[l].size(); ++i) {
        const double value = problem_.layers[l][alive_[l][i]].costs[row.cost] - row.base[l];
        if (value > 0.0) {
          columns.push_back(columns_[l][i]);
          values.push_back(value * row.factor);
        }
      }
    }
    if (!columns.empty()) {  // else alive_choices has settled the budget
      model_.add_row(row.lower * row.factor, row.upper * row.factor, columns, values);
      row.row = num_rows_++;
    }
    budget_rows_.push_back(std::move(row));
  }

  void add_cover(const CoverConstraint& cover) {
    std::vector<int> columns;
    for (std::size_t l = 0; l < alive_.size(); ++l) {
      const auto& members = cover.choices_per_layer[l];
      for (std::size_t i = 0; i < alive_[l].size(); ++i) {
        if (std::find(members.begin(), members.end(), alive_[l][i]) != members.end()) {
          columns.push_back(columns_[l][i]);
        }
      }
    }
    model_.add_row(static_cast<double>(cover.at_least), kInfinite, columns,
                   std::vector<double>(columns.size(), 1.0));
    ++num_rows_;
  }

  const Problem& problem_;
  AliveChoices alive_;
  double score_factor_;
  double score_base_ = 0.0;
  HighsModel model_;
  std::vector<std::vector<int>> columns_;  // per layer, as in alive_
  std::vector<BudgetRow> budget_rows_;
  int num_rows_ = 0;
};

// Largest difference to the best score of the same layer.
double score_spread(const Problem& problem, const AliveChoices& alive) {
  double spread = 0.0;
  for (std::size_t l = 0; l < alive.size(); ++l) {
    double low = kInfinite;
    double high = -kInfinite;
    for (const std::size_t j : alive[l]) {
      low = std::min(low, problem.layers[l][j].score);
      high = std::max(high, problem.layers[l][j].score);
    }
    spread = std::max(spread, high - low);
  }
  return spread;
}

class Deadline {
 public:
  explicit Deadline(double limit_s) : limit_s_(limit_s), start_(std::chrono::steady_clock::now()) {}
  [[nodiscard]] double left_s() const {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    return std::max(0.0, limit_s_ - spent.count());
  }

 private:
  double limit_s_;
  std::chrono::steady_clock::time_point start_;
};

struct SearchAnswer {
  SolveStatus status = SolveStatus::kUnknown;
  Assignment choices;
  double bound = -kInfinite;
};

// Solves the model until an answer stands in the original numbers.
SearchAnswer solve_model(const Problem& problem, SearchModel& model, const Deadline& deadline) {
  SearchAnswer answer;
  for (int attempt = 0; attempt <= kMaxCutAnswers + kMaxTightenings; ++attempt) {
    if (deadline.left_s() <= 0.0) {
      return answer;
    }
    const bool is_exact = attempt <= kMaxCutAnswers;  // no bound has been moved yet
    const HighsModel::Outcome outcome = model.run(deadline.left_s());
    if (outcome.kind == HighsModel::Outcome::Kind::kInfeasible) {
      if (!is_exact) {
        break;
      }
      answer.status = SolveStatus::kInfeasible;
      return answer;
    }
    if (is_exact) {
      answer.bound = model.bound_of(outcome);
    }
    if (outcome.values.empty()) {
      return answer;
    }
    Assignment choices = model.assignment_of(outcome.values);
    if (is_feasible(problem, choices)) {
      answer.status = outcome.kind == HighsModel::Outcome::Kind::kOptimal ? SolveStatus::kOptimal
                                                                          : SolveStatus::kFeasible;
      answer.choices = std::move(choices);
      return answer;
    }
    if (attempt < kMaxCutAnswers) {
      model.add_overlap(choices, static_cast<double>(choices.size()) - 1.0);
    } else {
      model.tighten(choices);
    }
  }
  fail(ErrorKind::kNumeric,
       "a budget lies within the solver's tolerance (1e-9) of sums that overstep it; change the "
       "budget by a millionth");
}

// Leaves only choices whose score alone does not exceed the whole (shifted) objective.
AliveChoices within_objective(const Problem& problem, const AliveChoices& alive, double excess) {
  AliveChoices result = alive;
  for (auto l = std::size_t{0}; l < result.size(); ++l) {
    double low = kInfinite;
    for (const std::size_t j : alive[l]) {
      low = std::min(low, problem.layers[l][j].score);
    }
    std::erase_if(result[l], [&](std::size_t j) {
      return problem.layers[l][j].score - low > excess * (1.0 + 1e-9);
    });
  }
  return result;
}

}  // namespace

Solver::Answer HighsSolver::solve_one(const Problem& problem,
                                      const std::vector<Assignment>& earlier,
                                      const SolveOptions& options) const {
  const Deadline deadline(options.time_limit_s);
  AliveChoices alive = alive_choices(problem);
  if (has_empty_layer(alive)) {
    return {.status = SolveStatus::kInfeasible, .choices = {}, .bound = 0.0};
  }
  SearchAnswer answer;
  double scale = score_spread(problem, alive);
  // Each round shrinks the scale at least a thousandfold.
  for (int round = 0; round < 8; ++round) {
    const double factor = scale > 0.0 ? kObjectiveScale / scale : 1.0;
    SearchModel model(problem, earlier, alive, factor);
    const SearchAnswer next = solve_model(problem, model, deadline);
    if (round > 0 && next.status != SolveStatus::kOptimal) {
      break;  // time is up (or rounding struck): the coarser answer stands
    }
    answer = next;
    if (answer.status != SolveStatus::kOptimal) {
      break;
    }
    const double excess = evaluate(problem, answer.choices).objective - model.score_base();
    if (excess * factor >= kSmallObjective || excess <= 0.0) {
      break;
    }
    alive = within_objective(problem, alive, excess);
    scale = excess;
  }
  return {.status = answer.status, .choices = answer.choices, .bound = answer.bound};
}

}  // namespace puzzle
