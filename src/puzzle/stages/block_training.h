// The students of one layer trained side by side from the same batches, and judged on held-out
// ones.
#pragma once

#include <cstdint>
#include <functional>
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
  std::uint64_t seed = 0;  // of the order of batches in each epoch
  std::int64_t curve_every = 10;
  ScheduleOptions schedule;
};

struct TrainingPoint {
  std::int64_t step = 0;       // steps taken
  std::vector<double> losses;  // of each student, mean over the steps since the last point
};

// Each batch of `states`, which enter the layer, goes through the parent once per epoch, and every
// student takes a step from it; afterwards `states` are the parent's outputs. `advance` is called
// with the windows of every batch done. Reads the device once per point and student.
[[nodiscard]] std::vector<TrainingPoint> train_students(
    std::vector<BlockStudent>& students, const LayerTask& task, const TrainingPlan& plan,
    HeldStates& states, const std::function<void(std::int64_t windows)>& advance);

// On held-out tokens, at the start and after training; infinite where not finite.
struct StudentVerdict {
  double loss_before = 0.0, loss_after = 0.0;
  double error_before = 0.0, error_after = 0.0;  // residual-free

  [[nodiscard]] bool keeps_training() const { return loss_after < loss_before; }
};

// Replaces `states` by the parent's outputs. Throws Error(kNumeric) where those are not finite.
[[nodiscard]] std::vector<StudentVerdict> judge_students(const std::vector<BlockStudent>& students,
                                                         const LayerTask& task, HeldStates& states);

}  // namespace puzzle
