// What the parts of `evaluate` share: ratios with standard errors, and the rows made of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "puzzle/base/error.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/results/rows.h"

namespace puzzle {

// Sums over this rank's units (windows or questions) of one quantity; a ratio of sums and its
// standard error by the delta method, units being independent.
class RatioOfSums {
 public:
  void add(double numerator, double denominator) {
    numerators_.push_back(numerator);
    denominators_.push_back(denominator);
  }

  struct Result {
    double value = 0.0;
    double standard_error = 0.0;
    std::int64_t count = 0;
  };

  [[nodiscard]] Result result(Communicator& communicator) const {
    double n = 0;
    double d = 0;
    for (std::size_t i = 0; i < numerators_.size(); ++i) {
      n += numerators_[i];
      d += denominators_[i];
    }
    n = communicator.all_reduce_sum(n);
    d = communicator.all_reduce_sum(d);
    const double units = communicator.all_reduce_sum(static_cast<double>(numerators_.size()));
    const double ratio = d > 0 ? n / d : 0.0;
    double square = 0;
    for (std::size_t i = 0; i < numerators_.size(); ++i) {
      const double residual = numerators_[i] - ratio * denominators_[i];
      square += residual * residual;
    }
    square = communicator.all_reduce_sum(square);
    const double error = units > 1 && d > 0 ? std::sqrt(square * units / (units - 1.0)) / d : 0.0;
    return {ratio, error, static_cast<std::int64_t>(d)};
  }

 private:
  std::vector<double> numerators_;
  std::vector<double> denominators_;
};

// Rows of one model on one task. add() throws Error(kNumeric) for a value that is not a number.
class EvaluationRowWriter {
 public:
  EvaluationRowWriter(std::string key, std::string model, std::string task)
      : key_(std::move(key)), model_(std::move(model)), task_(std::move(task)) {}

  void add(const std::string& metric, double value, double error, std::int64_t count) {
    if (std::isnan(value) || std::isnan(error)) {
      fail(ErrorKind::kNumeric,
           "evaluate: {} on {}: {} is not a number; the model gives non-finite values", model_,
           task_, metric);
    }
    rows_.push_back({key_, model_, task_, metric, value, error, count});
  }
  void add(const std::string& metric, const RatioOfSums::Result& result) {
    add(metric, result.value, result.standard_error, result.count);
  }
  [[nodiscard]] const std::vector<EvaluationRow>& rows() const { return rows_; }

 private:
  std::string key_;
  std::string model_;
  std::string task_;
  std::vector<EvaluationRow> rows_;
};

}  // namespace puzzle
