// What the parts of `evaluate` share: rows made of ratios with standard errors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "puzzle/base/error.h"
#include "puzzle/results/rows.h"
#include "puzzle/stages/ratio_of_sums.h"

namespace puzzle {

// value − other, sample by sample; both of one length.
[[nodiscard]] inline std::vector<double> differences(const std::vector<double>& values,
                                                     const std::vector<double>& others) {
  std::vector<double> result;
  std::ranges::transform(values, others, std::back_inserter(result), std::minus());
  return result;
}

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
