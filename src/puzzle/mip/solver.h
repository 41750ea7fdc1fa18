// The seam between the search and whatever solves it, and the form of an answer.
//
// "No child meets the budgets" is an answer, not an exception: it says which budget is out of reach
// and how far. Exceptions are for broken problems (kUsage), a stop by signal (kInterrupted) and a
// solver that gives up (kNumeric).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/mip/problem.h"

namespace puzzle {

struct SolveOptions {
  double time_limit_s = 60.0;  // of every single solution; > 0
  bool explain = true;         // whether the answer says why there is none: two solutions more per
                               // bound, one per cover
  std::function<void()> before_each{};  // called before each of them, if set
};

enum class SolveStatus {
  kOptimal,     // every solution is proven
  kFeasible,    // the time limit left at least one solution unproven
  kInfeasible,  // proven: no assignment meets the budgets and covers
  kUnknown,     // time limit before any assignment was found
};
[[nodiscard]] std::string status_name(SolveStatus status);

// An answer counts as proven at this relative gap.
constexpr double kProvenGap = 1e-6;

struct Solution {
  Assignment choices;
  double objective = 0.0;     // recomputed from the scores
  std::vector<double> costs;  // recomputed, fixed costs included; one per cost name
  double bound = 0.0;         // no solution (within the overlap limit) can be below this
  double gap = 0.0;           // (objective - bound) / |objective|, >= 0
  bool proven = false;        // gap <= kProvenGap
  double seconds = 0.0;
};

// What one bound would have to be.
struct BudgetReach {
  std::string cost;
  bool is_upper = true;               // at_most, else at_least
  double asked = 0.0;                 // the bound of the problem
  std::optional<double> alone;        // best attainable with no other budget; empty: covers clash
  std::optional<double> with_others;  // … with all other budgets held; empty: not even then
  bool proven = true;                 // false: a time limit left the two values unproven
};

struct Infeasibility {
  std::vector<BudgetReach> budgets;        // one per bound
  std::vector<std::string> covers_in_way;  // covers without which the budgets could be met
};

struct SolveResult {
  SolveStatus status = SolveStatus::kUnknown;
  std::vector<Solution> solutions;  // best first; each within the overlap limit of all before it
  // Set where fewer than num_solutions exist: proven, no further one differs enough.
  bool no_more_solutions = false;
  std::optional<Infeasibility> infeasibility;  // set for kInfeasible if an explanation was wanted
  double seconds = 0.0;
};

class Solver {
 public:
  Solver() = default;
  virtual ~Solver() = default;
  Solver(const Solver&) = delete;
  Solver& operator=(const Solver&) = delete;

  // Checks the problem, finds its solutions one after the other, explains infeasibility. Every
  // answer is evaluated and tested against the problem again, whatever the solver claims.
  [[nodiscard]] SolveResult solve(const Problem& problem, const SolveOptions& options = {}) const;

 protected:
  struct Answer {
    SolveStatus status = SolveStatus::kUnknown;
    Assignment choices;  // set for kOptimal and kFeasible
    double bound = 0.0;  // on the sum of scores
  };
  // One solution that shares at most max_shared_layers with each of `earlier`.
  [[nodiscard]] virtual Answer solve_one(const Problem& problem,
                                         const std::vector<Assignment>& earlier,
                                         const SolveOptions& options) const = 0;

 private:
  [[nodiscard]] Infeasibility explain(const Problem& problem, const SolveOptions& options) const;
  [[nodiscard]] BudgetReach reach(const Problem& problem, std::size_t budget, bool is_upper,
                                  const SolveOptions& options) const;
};

// One line for people: "memory_mib at most 80000: the smallest attainable with the other budgets
// held is 81234, on its own 70000", joined by "; ".
[[nodiscard]] std::string describe(const Infeasibility& infeasibility);

// Why a result holds no solution, and who has to act: kInfeasible where that is proven, kNumeric
// where the time limit ended before anything was found. Empty where there is a solution.
struct SolveFailure {
  ErrorKind kind = ErrorKind::kInfeasible;
  std::string why;
};
[[nodiscard]] std::optional<SolveFailure> solve_failure(const SolveResult& result,
                                                        const SolveOptions& options);

}  // namespace puzzle
