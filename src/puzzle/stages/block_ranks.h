// The variants of a layer divided over ranks. They do not depend on each other, every rank holds
// the same states, and each variant is trained by one rank: the result is the same to the last bit
// for any number of ranks.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "puzzle/dist/communicator.h"
#include "puzzle/model/nested_ffn.h"
#include "puzzle/stages/block_plan.h"
#include "puzzle/stages/block_training.h"

namespace puzzle {

// A student of a plan with what came of it.
struct TrainedVariant {
  PlannedStudent planned;
  LayerWeights kept;                       // the better of before and after; not kNestedFfn
  std::optional<NestedFfn> nested;         // kNestedFfn: before, or after where it helps any width
  std::vector<StudentVerdict> verdicts{};  // one per variant of the student
  std::vector<CurvePoint> curve{};

  [[nodiscard]] bool keeps_training() const;  // for any of its variants
};

// Which rank trains the variant at `index` of its layer's plan.
[[nodiscard]] int owner_of(std::size_t index, const Communicator& communicator);

// Gives what rank `owner` has made of a student to every rank; on the others `kept` or `nested`
// must hold the starting weights. All ranks call it for the same variants in the same order.
void share_variant(Communicator& communicator, int owner, TrainedVariant& variant);

}  // namespace puzzle
