#include "puzzle/stages/nested_student.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/data/random_order.h"

namespace puzzle {
namespace {

// A width that is as good as the parent has nothing to ask for.
constexpr double kLeastLoss = 1e-9;

NestedFfn trainable_nested(const NestedFfn& start) {
  const NestedFfn nested = in_one_type(start);
  return {trainable_copy(nested.whole), nested.basis};
}

}  // namespace

std::vector<std::size_t> sampled_widths(const WidthSampling& sampling, std::size_t num_widths,
                                        std::int64_t step) {
  PUZZLE_CHECK(sampling.per_step >= 2, "{} widths a step", sampling.per_step);
  std::vector<std::size_t> chosen;
  const auto count = std::min(static_cast<std::size_t>(sampling.per_step), num_widths);
  if (num_widths > 2) {
    const auto seed = derive_seed(sampling.seed, fmt::format("step {}", step));
    const auto order = random_order(static_cast<std::int64_t>(num_widths) - 2, seed);
    for (std::size_t i = 0; i + 2 < count; ++i) {
      chosen.push_back(static_cast<std::size_t>(order[i]) + 1);
    }
  }
  if (num_widths > 0) {
    chosen.push_back(0);
  }
  if (num_widths > 1) {
    chosen.push_back(num_widths - 1);
  }
  std::ranges::sort(chosen);
  return chosen;
}

NestedStudent::NestedStudent(const NestedFfn& start, std::vector<std::int64_t> widths,
                             const WidthSampling& sampling, const LayerWeights& parent,
                             const Geometry& geometry, double peak_rate,
                             const AdamWOptions& options)
    : nested_(trainable_nested(start)),
      start_(start),
      present_(nested_),
      widths_(std::move(widths)),
      sampling_(sampling),
      geometry_(geometry),
      shares_input_(is_same_norm(start.whole.norm, parent.ffn.norm)),
      peak_rate_(peak_rate),
      optimizer_(optimizer_of(nested_.whole, options)) {
  PUZZLE_CHECK(!widths_.empty(), "a nested FFN of {} without widths", start.width());
}

NestedFfn NestedStudent::trained() const {
  NestedFfn nested = nested_;
  visit_tensors(nested.whole, TensorVisitor([](const std::string&, at::Tensor& tensor) {
                  tensor = tensor.detach();
                }));
  return nested;
}

at::Tensor NestedStudent::input(const SharedBatch& batch) const {
  return shares_input_ ? batch.parent.ffn_xn : ffn_input(nested_.whole, geometry_, batch.mid_BTD);
}

at::Tensor NestedStudent::train_step(const SharedBatch& batch, double factor) {
  std::vector<std::int64_t> widths;
  for (const std::size_t i : sampled_widths(sampling_, widths_.size(), optimizer_.steps_taken())) {
    widths.push_back(widths_[i]);
  }
  at::Tensor loss, objective;
  {
    const c10::AutoGradMode gradients(true);
    present_.visit(input(batch), widths, [&](std::size_t, const at::Tensor& y) {
      const at::Tensor one = batch.target.loss(batch.mid_BTD + y);
      const at::Tensor value = one.detach();
      const at::Tensor scaled = one / value.clamp_min(kLeastLoss).sqrt();
      objective = objective.defined() ? objective + scaled : scaled;
      loss = loss.defined() ? loss + value : value;
    });
    objective.backward();
  }
  optimizer_.step(peak_rate_ * factor);
  optimizer_.zero_grad();
  return loss / static_cast<double>(widths.size());
}

void NestedStudent::add_all(const NestedForward& forward, const SharedBatch& batch,
                            std::span<StudentErrors> errors) const {
  const c10::NoGradGuard no_grad;
  forward.visit(input(batch), widths_, [&](std::size_t index, const at::Tensor& y) {
    errors[index].add(batch, batch.mid_BTD + y);
  });
}

void NestedStudent::add_errors(const SharedBatch& batch, std::span<StudentErrors> errors) const {
  add_all(present_, batch, errors);
}

void NestedStudent::add_start_errors(const SharedBatch& batch,
                                     std::span<StudentErrors> errors) const {
  add_all(start_, batch, errors);
}

}  // namespace puzzle
