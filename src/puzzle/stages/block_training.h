// The students of one layer trained side by side from the same batches, and judged on held-out
// ones.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "puzzle/stages/block_student.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/train/schedule.h"

namespace puzzle {

struct LayerTask {
  const LayerWeights& parent;
  const Geometry& geometry;
  BlockLoss loss = BlockLoss::kTokenMse;
  std::string place;  // opens messages
};

struct TrainingPlan {
  std::int64_t epochs = 1;
  std::uint64_t seed = 0;          // of the order of batches in each epoch
  std::int64_t curve_every = 10;   // steps between two points
  std::int64_t curve_batches = 1;  // held-out batches behind a point
  ScheduleOptions schedule;
};

// Infinite where not finite.
struct HeldOutErrors {
  double loss = 0.0;
  double error = 0.0;  // residual-free
};

struct CurvePoint {
  std::int64_t step = 0;   // steps taken
  double loss = 0.0;       // mean over the steps since the last point; NaN before the first step
  HeldOutErrors held_out;  // of the weights after `step` steps, on the first `curve_batches`
};

// Each batch of `states`, which enter the layer, goes through the parent once per epoch, and every
// student takes a step from it; afterwards `states` are the parent's outputs. `held_out` are other
// states that enter the layer; they stay. `advance` is called with the windows of every batch done.
// Returns each student's curve, whose first point is the start and whose last the end; the held-out
// errors of a student of several variants are the means of theirs.
[[nodiscard]] std::vector<std::vector<CurvePoint>> train_students(
    const std::vector<std::unique_ptr<LayerStudent>>& students, const LayerTask& task,
    const TrainingPlan& plan, HeldStates& states, const HeldStates& held_out,
    const std::function<void(std::int64_t windows)>& advance);

// On held-out tokens, at the start and after training.
struct StudentVerdict {
  HeldOutErrors before;
  HeldOutErrors after;

  [[nodiscard]] bool keeps_training() const { return after.loss < before.loss; }
};

// One verdict per variant of each student. Replaces `states` by the parent's outputs. Throws
// Error(kNumeric) where those are not finite.
[[nodiscard]] std::vector<std::vector<StudentVerdict>> judge_students(
    const std::vector<std::unique_ptr<LayerStudent>>& students, const LayerTask& task,
    HeldStates& states);

}  // namespace puzzle
