#include "puzzle/stages/ratio_of_sums.h"

#include <cmath>

#include <ATen/ATen.h>

namespace puzzle {

void sum_over_ranks(std::vector<double>& values, Communicator& communicator) {
  at::Tensor sums = at::tensor(values, at::TensorOptions(at::kDouble));
  communicator.all_reduce_sum(sums);
  const double* summed = sums.const_data_ptr<double>();
  values.assign(summed, summed + sums.numel());
}

void RatioOfSums::add(std::int64_t unit, double numerator, double denominator) {
  numerators_.at(static_cast<std::size_t>(unit)) += numerator;
  denominators_.at(static_cast<std::size_t>(unit)) += denominator;
}

void RatioOfSums::add_windows(std::span<const std::int64_t> units, const at::Tensor& values_N,
                              const at::Tensor& counted_N) {
  const auto per_window = [&](const at::Tensor& x_N) {
    return x_N.to(at::kDouble).reshape({std::ssize(units), -1}).sum(-1).to(at::kCPU).contiguous();
  };
  const at::Tensor sums = per_window(at::where(counted_N, values_N.to(at::kDouble), 0.0));
  const at::Tensor counts = per_window(counted_N);
  for (std::size_t w = 0; w < units.size(); ++w) {
    add(units[w], sums.const_data_ptr<double>()[w], counts.const_data_ptr<double>()[w]);
  }
}

RatioOfSums::Result RatioOfSums::result() const {
  return ratio_of_sums(numerators_, denominators_);
}

UnitSums RatioOfSums::by_unit(Communicator& communicator) const {
  UnitSums whole{numerators_, denominators_};
  sum_over_ranks(whole.numerators, communicator);
  sum_over_ranks(whole.denominators, communicator);
  return whole;
}

RatioOfSums::Result RatioOfSums::result(Communicator& communicator) const {
  const UnitSums whole = by_unit(communicator);
  return ratio_of_sums(whole.numerators, whole.denominators);
}

RatioOfSums::Result RatioOfSums::minus(const RatioOfSums& other, Communicator& communicator) const {
  RatioOfSums difference(static_cast<std::int64_t>(numerators_.size()));
  for (std::size_t i = 0; i < numerators_.size(); ++i) {
    difference.add(static_cast<std::int64_t>(i), numerators_[i] - other.numerators_[i],
                   denominators_[i]);
  }
  return difference.result(communicator);
}

}  // namespace puzzle
