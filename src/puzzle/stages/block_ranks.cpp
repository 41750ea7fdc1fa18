#include "puzzle/stages/block_ranks.h"

#include <cstring>
#include <string>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

std::string pack_outcome(const TrainedVariant& variant) {
  std::string bytes(sizeof(StudentVerdict) + variant.curve.size() * sizeof(CurvePoint), '\0');
  std::memcpy(bytes.data(), &variant.verdict, sizeof(StudentVerdict));
  std::memcpy(bytes.data() + sizeof(StudentVerdict), variant.curve.data(),
              variant.curve.size() * sizeof(CurvePoint));
  return bytes;
}

void unpack_outcome(const std::string& bytes, TrainedVariant& variant) {
  PUZZLE_CHECK(bytes.size() >= sizeof(StudentVerdict), "an outcome of {} bytes", bytes.size());
  std::memcpy(&variant.verdict, bytes.data(), sizeof(StudentVerdict));
  variant.curve.resize((bytes.size() - sizeof(StudentVerdict)) / sizeof(CurvePoint));
  std::memcpy(variant.curve.data(), bytes.data() + sizeof(StudentVerdict),
              variant.curve.size() * sizeof(CurvePoint));
}

template <class Half>
void share_half(Communicator& communicator, int owner, Half& half) {
  // Also on the owner: what was not trained lies in the mapped library file, which is read-only.
  half = clone(half, /*requires_grad=*/false);
  visit_tensors(half, TensorVisitor([&](const std::string& /*name*/, at::Tensor& tensor) {
                  communicator.broadcast(tensor, owner);
                }));
}

}  // namespace

int owner_of(std::size_t index, const Communicator& communicator) {
  return static_cast<int>(index % static_cast<std::size_t>(communicator.size()));
}

void share_variant(Communicator& communicator, int owner, TrainedVariant& variant) {
  if (communicator.size() == 1) {
    return;
  }
  const c10::NoGradGuard no_grad;
  const bool is_owner = communicator.rank() == owner;
  unpack_outcome(communicator.broadcast_string(is_owner ? pack_outcome(variant) : "", owner),
                 variant);
  if (!variant.verdict.keeps_training()) {
    return;
  }
  if (variant.planned.role != StudentRole::kFfn) {
    share_half(communicator, owner, variant.kept.attention);
  }
  if (variant.planned.role != StudentRole::kAttention) {
    share_half(communicator, owner, variant.kept.ffn);
  }
}

}  // namespace puzzle
