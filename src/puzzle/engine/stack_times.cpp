#include "puzzle/engine/stack_times.h"

#include <algorithm>
#include <cmath>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

using StackRows = std::vector<std::vector<double>>;

// Rows of counts, divided by the measured seconds, so that the right-hand side is all ones.
struct StackSystem {
  std::vector<std::string> names;  // of the columns
  StackRows rows;                  // [stacks, names]
};

StackSystem make_stack_system(const std::vector<StackTiming>& stacks, const std::string& shared) {
  std::map<std::string, std::size_t> columns = {{shared, 0}};
  for (const StackTiming& stack : stacks) {
    if (!std::isfinite(stack.seconds) || stack.seconds <= 0.0) {
      fail(ErrorKind::kNumeric, "a stack took {} seconds, expected a positive time", stack.seconds);
    }
    for (const auto& [name, count] : stack.counts) {
      PUZZLE_CHECK(name != shared && count >= 0, "{} counted {} times", name, count);
      columns.emplace(name, 0);
    }
  }
  StackSystem system;
  for (auto& [name, column] : columns) {
    column = system.names.size();
    system.names.push_back(name);
  }
  for (const StackTiming& stack : stacks) {
    std::vector<double> row(columns.size(), 0.0);
    row[columns[shared]] = 1.0 / stack.seconds;
    for (const auto& [name, count] : stack.counts) {
      row[columns[name]] = static_cast<double>(count) / stack.seconds;
    }
    system.rows.push_back(std::move(row));
  }
  return system;
}

// A column whose part independent of the earlier ones is this small counts as determined by them.
constexpr double kDependentColumn = 1e-9;

// Least squares over the columns in `active` by modified Gram-Schmidt, which keeps the accuracy
// that normal equations would square away. `dependent` receives a column that others determine, if
// any.
std::vector<double> solve_stack_columns(const StackSystem& system,
                                        const std::vector<std::size_t>& active,
                                        std::size_t* dependent) {
  const std::size_t n = active.size();
  StackRows q;  // [n, stacks]
  StackRows r(n, std::vector<double>(n, 0.0));
  std::vector<double> rest(system.rows.size(), 1.0);
  std::vector<double> projected(n, 0.0);
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      sum += a[i] * b[i];
    }
    return sum;
  };
  for (std::size_t j = 0; j < n; ++j) {
    std::vector<double> column;
    for (const std::vector<double>& row : system.rows) {
      column.push_back(row[active[j]]);
    }
    const double before = std::sqrt(dot(column, column));
    for (std::size_t k = 0; k < j; ++k) {
      r[k][j] = dot(q[k], column);
      for (std::size_t i = 0; i < column.size(); ++i) {
        column[i] -= r[k][j] * q[k][i];
      }
    }
    r[j][j] = std::sqrt(dot(column, column));
    if (r[j][j] <= kDependentColumn * before) {
      *dependent = active[j];
      return {};
    }
    for (double& value : column) {
      value /= r[j][j];
    }
    projected[j] = dot(column, rest);
    for (std::size_t i = 0; i < column.size(); ++i) {
      rest[i] -= projected[j] * column[i];
    }
    q.push_back(std::move(column));
  }
  std::vector<double> solution(n, 0.0);
  for (std::size_t j = n; j-- > 0;) {
    double value = projected[j];
    for (std::size_t k = j + 1; k < n; ++k) {
      value -= r[j][k] * solution[k];
    }
    solution[j] = value / r[j][j];
  }
  return solution;
}

std::vector<double> stack_residuals(const StackSystem& system, const std::vector<double>& x) {
  std::vector<double> residuals;
  for (const std::vector<double>& row : system.rows) {
    double predicted = 0.0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      predicted += row[j] * x[j];
    }
    residuals.push_back(predicted - 1.0);
  }
  return residuals;
}

std::vector<std::size_t> active_columns(const std::vector<bool>& is_active) {
  std::vector<std::size_t> active;
  for (std::size_t j = 0; j < is_active.size(); ++j) {
    if (is_active[j]) {
      active.push_back(j);
    }
  }
  return active;
}

// Lawson & Hanson (1974), algorithm NNLS: columns join one by one where that lowers the error, and
// leave where they would turn negative.
class StackSolver {
 public:
  explicit StackSolver(const StackSystem& system)
      : system_(system), x_(system.names.size(), 0.0), is_active_(system.names.size(), false) {}

  std::vector<double> solve() {
    // Each pass lowers the error, so no set of columns comes twice; the bound only guards rounding.
    for (std::size_t pass = 0; pass < 10 * x_.size() + 10; ++pass) {
      const std::size_t column = steepest();
      if (column == x_.size()) {
        break;
      }
      is_active_[column] = true;
      settle();
    }
    return x_;
  }

 private:
  // The inactive column along which the error falls fastest; the number of columns if there is
  // none.
  [[nodiscard]] std::size_t steepest() const {
    const std::vector<double> residuals = stack_residuals(system_, x_);
    std::size_t best = x_.size();
    double best_descent = 1e-12;
    for (std::size_t j = 0; j < x_.size(); ++j) {
      double descent = 0.0;
      double norm = 0.0;
      for (std::size_t i = 0; i < residuals.size(); ++i) {
        descent -= system_.rows[i][j] * residuals[i];
        norm += system_.rows[i][j] * system_.rows[i][j];
      }
      descent /= std::sqrt(norm);
      if (!is_active_[j] && descent > best_descent) {
        best = j;
        best_descent = descent;
      }
    }
    return best;
  }

  // Moves x to the least squares solution over the active columns, dropping those it meets at 0.
  void settle() {
    for (;;) {
      const std::vector<std::size_t> active = active_columns(is_active_);
      std::size_t dependent = 0;
      const std::vector<double> target = solve_stack_columns(system_, active, &dependent);
      PUZZLE_CHECK(target.size() == active.size(), "column {} became dependent", dependent);
      double step = 1.0;
      for (std::size_t k = 0; k < active.size(); ++k) {
        const double from = x_[active[k]];
        if (target[k] <= 0.0) {
          step = std::min(step, from / (from - target[k]));
        }
      }
      for (std::size_t k = 0; k < active.size(); ++k) {
        double& value = x_[active[k]];
        value += step * (target[k] - value);
        if (step < 1.0 && (value <= 1e-15 * std::abs(target[k]) || value <= 0.0)) {
          value = 0.0;
          is_active_[active[k]] = false;
        }
      }
      if (step >= 1.0) {
        return;
      }
    }
  }

  const StackSystem& system_;
  std::vector<double> x_;
  std::vector<bool> is_active_;
};

}  // namespace

SubblockTimes solve_subblock_times(const std::vector<StackTiming>& stacks,
                                   const std::string& shared) {
  const StackSystem system = make_stack_system(stacks, shared);
  std::size_t dependent = 0;
  const std::vector<std::size_t> all = active_columns(std::vector<bool>(system.names.size(), true));
  if (solve_stack_columns(system, all, &dependent).empty()) {
    fail(ErrorKind::kUsage,
         "{} stacks do not determine the time of {} beside the others; add a stack with another "
         "number of it",
         stacks.size(), system.names[dependent]);
  }
  const std::vector<double> x = StackSolver(system).solve();
  SubblockTimes times;
  for (std::size_t j = 0; j < x.size(); ++j) {
    times.seconds[system.names[j]] = x[j];
    if (x[j] == 0.0) {
      times.at_zero.push_back(system.names[j]);
    }
  }
  times.residuals = stack_residuals(system, x);
  double sum = 0.0;
  for (const double residual : times.residuals) {
    sum += residual * residual;
    times.residual_max = std::max(times.residual_max, std::abs(residual));
  }
  times.residual_rms = std::sqrt(sum / static_cast<double>(stacks.size()));
  return times;
}

}  // namespace puzzle
