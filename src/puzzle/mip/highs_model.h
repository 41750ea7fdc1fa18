// One HiGHS instance through its C interface: binary columns, rows, one thread.
#pragma once

#include <vector>

namespace puzzle {

class HighsModel {
 public:
  struct Outcome {
    enum class Kind { kOptimal, kInfeasible, kTimeLimit } kind = Kind::kTimeLimit;
    std::vector<double> values;  // one per column; empty if no solution was found
    double bound = 0.0;          // proven lower bound on the objective; -inf if none
  };

  HighsModel();
  ~HighsModel();
  HighsModel(const HighsModel&) = delete;
  HighsModel& operator=(const HighsModel&) = delete;

  // A 0-1 variable; returns its column.
  int add_binary(double objective);
  // lower <= sum of values * columns <= upper; ±infinity for no bound.
  void add_row(double lower, double upper, const std::vector<int>& columns,
               const std::vector<double>& values);
  void change_row_bounds(int row, double lower, double upper);

  // Minimises. Throws Error(kInterrupted) on SIGINT or SIGTERM, Error(kNumeric) if HiGHS fails.
  [[nodiscard]] Outcome run(double time_limit_s, double relative_gap);

 private:
  void* highs_;
  int num_columns_ = 0;
  int num_rows_ = 0;
};

}  // namespace puzzle
