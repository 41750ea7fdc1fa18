#include "puzzle/stages/block_training.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/data/random_order.h"

namespace puzzle {
namespace {

using LayerStudents = std::vector<std::unique_ptr<LayerStudent>>;
using VariantErrors = std::vector<StudentErrors>;

SharedBatch run_batch(const LayerTask& task, const HeldStates& states, std::int64_t index) {
  return run_shared(task.parent, task.geometry, states.states(index), states.pass(index),
                    task.loss);
}

// What held-out sums are divided by.
struct HeldOutNorms {
  double loss = 0.0;
  double error = 0.0;

  void add(const SharedBatch& batch) {
    loss += batch.target.denominator().item<double>();
    error += batch.delta_norm2.item<double>();
  }
};

double held_out_fraction(const at::Tensor& sum, double whole) {
  const double part = sum.item<double>();
  return std::isfinite(part) ? part / std::max(whole, std::numeric_limits<double>::min())
                             : std::numeric_limits<double>::infinity();
}

HeldOutErrors held_out_errors(const StudentErrors& sums, const HeldOutNorms& norms) {
  return {held_out_fraction(sums.loss_numerator, norms.loss),
          held_out_fraction(sums.error2, norms.error)};
}

HeldOutErrors mean_errors(const VariantErrors& variants, const HeldOutNorms& norms) {
  HeldOutErrors mean;
  for (const StudentErrors& sums : variants) {
    const HeldOutErrors errors = held_out_errors(sums, norms);
    mean.loss += errors.loss / static_cast<double>(variants.size());
    mean.error += errors.error / static_cast<double>(variants.size());
  }
  return mean;
}

std::vector<VariantErrors> empty_errors(const LayerStudents& students) {
  std::vector<VariantErrors> errors;
  for (const auto& student : students) {
    errors.emplace_back(student->num_variants());
  }
  return errors;
}

// The curves of all students, point by point.
class CurveRecorder {
 public:
  CurveRecorder(const LayerStudents& students, const LayerTask& task, const TrainingPlan& plan,
                const HeldStates& held_out)
      : students_(students),
        task_(task),
        num_batches_(std::min(plan.curve_batches, held_out.num_batches())),
        held_out_(held_out),
        loss_sums_(students.size()),
        curves_(students.size()) {}

  void add_loss(std::size_t student, const at::Tensor& loss) {
    at::Tensor& sum = loss_sums_[student];
    sum = sum.defined() ? sum + loss : loss;
  }

  // Reads the device.
  void add_point(std::int64_t step) {
    std::vector<VariantErrors> errors = empty_errors(students_);
    HeldOutNorms norms;
    for (std::int64_t index = 0; index < num_batches_ && !students_.empty(); ++index) {
      const SharedBatch batch = run_batch(task_, held_out_, index);
      norms.add(batch);
      for (std::size_t i = 0; i < students_.size(); ++i) {
        students_[i]->add_errors(batch, errors[i]);
      }
    }
    for (std::size_t i = 0; i < students_.size(); ++i) {
      const double loss = loss_sums_[i].defined() ? loss_sums_[i].item<double>() /
                                                        static_cast<double>(step - last_step_)
                                                  : std::numeric_limits<double>::quiet_NaN();
      loss_sums_[i] = at::Tensor();
      curves_[i].push_back({step, loss, mean_errors(errors[i], norms)});
    }
    last_step_ = step;
  }

  [[nodiscard]] std::vector<std::vector<CurvePoint>> take() { return std::move(curves_); }

 private:
  const LayerStudents& students_;
  const LayerTask& task_;
  std::int64_t num_batches_;
  const HeldStates& held_out_;
  std::int64_t last_step_ = 0;
  std::vector<at::Tensor> loss_sums_;  // fp64 scalars on the device, since the last point
  std::vector<std::vector<CurvePoint>> curves_;
};

}  // namespace

std::vector<std::vector<CurvePoint>> train_students(
    const LayerStudents& students, const LayerTask& task, const TrainingPlan& plan,
    HeldStates& states, const HeldStates& held_out,
    const std::function<void(std::int64_t windows)>& advance) {
  const std::int64_t num_steps = plan.epochs * states.num_batches();
  CurveRecorder curves(students, task, plan, held_out);
  curves.add_point(0);
  std::int64_t step = 0;
  for (std::int64_t epoch = 0; epoch < plan.epochs; ++epoch) {
    const std::uint64_t seed = derive_seed(plan.seed, fmt::format("epoch {}", epoch));
    for (const std::int64_t index : random_order(states.num_batches(), seed)) {
      const SharedBatch batch = run_batch(task, states, index);
      if (epoch + 1 == plan.epochs) {
        states.replace(index, batch.target.output());
      }
      const double factor = schedule_factor(plan.schedule, step, num_steps);
      for (std::size_t i = 0; i < students.size(); ++i) {
        curves.add_loss(i, students[i]->train_step(batch, factor));
      }
      ++step;
      if (step % plan.curve_every == 0 || step == num_steps) {
        curves.add_point(step);
      }
      advance(states.num_windows(index));
    }
  }
  return curves.take();
}

std::vector<std::vector<StudentVerdict>> judge_students(const LayerStudents& students,
                                                        const LayerTask& task, HeldStates& states) {
  std::vector<VariantErrors> before = empty_errors(students);
  std::vector<VariantErrors> after = empty_errors(students);
  HeldOutNorms norms;
  for (std::int64_t index = 0; index < states.num_batches(); ++index) {
    const SharedBatch batch = run_batch(task, states, index);
    for (std::size_t i = 0; i < students.size(); ++i) {
      students[i]->add_start_errors(batch, before[i]);
      students[i]->add_errors(batch, after[i]);
    }
    norms.add(batch);
    states.replace(index, batch.target.output());
  }
  if (!std::isfinite(norms.loss) || !std::isfinite(norms.error)) {
    fail(ErrorKind::kNumeric, "{}: the parent's outputs are not finite; are its weights sound?",
         task.place);
  }
  std::vector<std::vector<StudentVerdict>> verdicts(students.size());
  for (std::size_t i = 0; i < students.size(); ++i) {
    for (std::size_t v = 0; v < before[i].size(); ++v) {
      verdicts[i].push_back(
          {held_out_errors(before[i][v], norms), held_out_errors(after[i][v], norms)});
    }
  }
  return verdicts;
}

}  // namespace puzzle
