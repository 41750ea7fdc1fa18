#include "puzzle/stages/block_ranks.h"

#include <algorithm>
#include <cstring>
#include <string>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Verdicts, as many as the student has variants, then the curve.
std::string pack_outcome(const TrainedVariant& variant) {
  const std::size_t verdict_bytes = variant.verdicts.size() * sizeof(StudentVerdict);
  std::string bytes(verdict_bytes + variant.curve.size() * sizeof(CurvePoint), '\0');
  std::memcpy(bytes.data(), variant.verdicts.data(), verdict_bytes);
  std::memcpy(bytes.data() + verdict_bytes, variant.curve.data(), bytes.size() - verdict_bytes);
  return bytes;
}

void unpack_outcome(const std::string& bytes, TrainedVariant& variant) {
  variant.verdicts.resize(variant.planned.variant_names().size());
  const std::size_t verdict_bytes = variant.verdicts.size() * sizeof(StudentVerdict);
  PUZZLE_CHECK(bytes.size() >= verdict_bytes, "an outcome of {} bytes", bytes.size());
  std::memcpy(variant.verdicts.data(), bytes.data(), verdict_bytes);
  variant.curve.resize((bytes.size() - verdict_bytes) / sizeof(CurvePoint));
  std::memcpy(variant.curve.data(), bytes.data() + verdict_bytes, bytes.size() - verdict_bytes);
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

bool TrainedVariant::keeps_training() const {
  return std::ranges::any_of(verdicts, &StudentVerdict::keeps_training);
}

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
  if (!variant.keeps_training()) {
    return;
  }
  const StudentRole role = variant.planned.role;
  if (role == StudentRole::kNestedFfn) {
    *variant.nested = in_one_type(*variant.nested);
    share_half(communicator, owner, variant.nested->whole);
  }
  if (role == StudentRole::kAttention || role == StudentRole::kBlock) {
    share_half(communicator, owner, variant.kept.attention);
  }
  if (role == StudentRole::kFfn || role == StudentRole::kBlock) {
    share_half(communicator, owner, variant.kept.ffn);
  }
}

}  // namespace puzzle
