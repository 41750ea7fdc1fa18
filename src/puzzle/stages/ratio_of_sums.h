// A ratio of two sums over units that may be taken as independent (groups of windows, questions),
// with its standard error.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "puzzle/dist/communicator.h"
#include "puzzle/results/sum_ratio.h"

namespace at {
class Tensor;
}

namespace puzzle {

struct UnitSums {
  std::vector<double> numerators;
  std::vector<double> denominators;
};

// Units may be divided over ranks in any way: each rank adds what it has of each.
class RatioOfSums {
 public:
  explicit RatioOfSums(std::int64_t num_units)
      : numerators_(static_cast<std::size_t>(num_units)),
        denominators_(static_cast<std::size_t>(num_units)) {}

  // Adds to unit `unit`, 0 … num_units - 1.
  void add(std::int64_t unit, double numerator, double denominator);
  // Adds windows of equally many tokens: values [N] where `counted_N` (bool) says so, and how many
  // these are. `units` has the unit of each window.
  void add_windows(std::span<const std::int64_t> units, const at::Tensor& values_N,
                   const at::Tensor& counted_N);

  using Result = SumRatio;

  // Of what was added here.
  [[nodiscard]] Result result() const;
  // Of what was added on all ranks, which must all call it; the same on each.
  [[nodiscard]] Result result(Communicator& communicator) const;
  // Sums by unit of what was added on all ranks, which must all call it; the same on each.
  [[nodiscard]] UnitSums by_unit(Communicator& communicator) const;
  // Of this ratio minus another with the same units and denominators, paired unit by unit.
  [[nodiscard]] Result minus(const RatioOfSums& other, Communicator& communicator) const;

 private:
  std::vector<double> numerators_;
  std::vector<double> denominators_;
};

// Replaces each value by its sum over ranks, which must all call it.
void sum_over_ranks(std::vector<double>& values, Communicator& communicator);

}  // namespace puzzle
