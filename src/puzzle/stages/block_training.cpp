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

TrainingPoint read_point(std::int64_t step, std::int64_t num_steps, std::vector<at::Tensor>& sums) {
  TrainingPoint point{.step = step, .losses = {}};
  for (at::Tensor& sum : sums) {
    point.losses.push_back(sum.item<double>() / static_cast<double>(num_steps));
    sum = at::Tensor();
  }
  return point;
}

double held_out_fraction(const at::Tensor& sum, double whole) {
  const double part = sum.item<double>();
  return std::isfinite(part) ? part / std::max(whole, std::numeric_limits<double>::min())
                             : std::numeric_limits<double>::infinity();
}

}  // namespace

std::vector<TrainingPoint> train_students(
    std::vector<BlockStudent>& students, const LayerTask& task, const TrainingPlan& plan,
    HeldStates& states, const std::function<void(std::int64_t windows)>& advance) {
  const std::int64_t num_steps = plan.epochs * states.num_batches();
  std::vector<TrainingPoint> points;
  std::vector<at::Tensor> sums(students.size());
  std::int64_t point_step = 0;
  std::int64_t step = 0;
  for (std::int64_t epoch = 0; epoch < plan.epochs; ++epoch) {
    const std::uint64_t seed = derive_seed(plan.seed, fmt::format("epoch {}", epoch));
    for (const std::int64_t index : random_order(states.num_batches(), seed)) {
      const SharedBatch batch = run_shared(task.parent, task.geometry, states.states(index),
                                           states.pass(index), task.loss);
      if (epoch + 1 == plan.epochs) {
        states.replace(index, batch.target.output());
      }
      const double factor = schedule_factor(plan.schedule, step, num_steps);
      for (std::size_t i = 0; i < students.size(); ++i) {
        const at::Tensor loss = students[i].train_step(batch, factor);
        sums[i] = sums[i].defined() ? sums[i] + loss : loss;
      }
      ++step;
      if (step % plan.curve_every == 0 || step == num_steps) {
        points.push_back(read_point(step, step - point_step, sums));
        point_step = step;
      }
      advance(states.num_windows(index));
    }
  }
  return points;
}

std::vector<StudentVerdict> judge_students(const std::vector<BlockStudent>& students,
                                           const LayerTask& task, HeldStates& states) {
  std::vector<StudentErrors> before(students.size());
  std::vector<StudentErrors> after(students.size());
  double loss_denominator = 0.0;
  double delta_norm2 = 0.0;
  for (std::int64_t index = 0; index < states.num_batches(); ++index) {
    const SharedBatch batch =
        run_shared(task.parent, task.geometry, states.states(index), states.pass(index), task.loss);
    for (std::size_t i = 0; i < students.size(); ++i) {
      students[i].add_errors(batch, before[i], after[i]);
    }
    loss_denominator += batch.target.denominator().item<double>();
    delta_norm2 += batch.delta_norm2.item<double>();
    states.replace(index, batch.target.output());
  }
  if (!std::isfinite(delta_norm2) || !std::isfinite(loss_denominator)) {
    fail(ErrorKind::kNumeric, "{}: the parent's outputs are not finite; are its weights sound?",
         task.place);
  }
  std::vector<StudentVerdict> verdicts;
  for (std::size_t i = 0; i < students.size(); ++i) {
    verdicts.push_back({held_out_fraction(before[i].loss_numerator, loss_denominator),
                        held_out_fraction(after[i].loss_numerator, loss_denominator),
                        held_out_fraction(before[i].error2, delta_norm2),
                        held_out_fraction(after[i].error2, delta_norm2)});
  }
  return verdicts;
}

}  // namespace puzzle
