#include "puzzle/stages/block_plan.h"

#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/stages/named_pairs.h"

namespace puzzle {
namespace {

std::vector<PlannedStudent> plan_halves(const LayerSpace& space, const BlockSpec& own) {
  std::vector<PlannedStudent> students;
  for (const AttentionSpec& attention : space.attention) {
    if (attention != own.attention && attention.kind != AttentionKind::kNone) {
      students.push_back({StudentRole::kAttention, {attention, own.ffn}});
    }
  }
  for (const FfnSpec& ffn : space.ffn) {
    if (ffn != own.ffn && ffn.kind != FfnKind::kNone) {
      students.push_back({StudentRole::kFfn, {own.attention, ffn}});
    }
  }
  return students;
}

std::vector<PlannedStudent> plan_pairs(const std::vector<BlockSpec>& pairs) {
  std::vector<PlannedStudent> students;
  for (const BlockSpec& pair : pairs) {
    if (pair.attention.kind == AttentionKind::kNone && pair.ffn.kind == FfnKind::kNone) {
      fail(ErrorKind::kUsage, "distill_blocks.pairs: '{}': there is nothing to train in it",
           pair.name());
    }
    students.push_back({StudentRole::kBlock, pair});
  }
  return students;
}

}  // namespace

std::string PlannedStudent::name() const {
  switch (role) {
    case StudentRole::kAttention:
      return "attention/" + block.attention.name();
    case StudentRole::kFfn:
      return "ffn/" + block.ffn.name();
    case StudentRole::kBlock:
      break;
  }
  return "block/" + block.name();
}

std::vector<std::vector<PlannedStudent>> plan_students(const ModelSpec& parent,
                                                       const SearchSpace& space,
                                                       const DistillBlocksOptions& options) {
  const bool is_coupled = options.mode == "coupled";
  if (is_coupled == options.pairs.empty()) {
    fail(ErrorKind::kUsage, "distill_blocks: mode is {} and {} pairs are named; {}", options.mode,
         options.pairs.size(),
         is_coupled ? "name at least one in distill_blocks.pairs"
                    : "set distill_blocks.mode to coupled, or take the pairs out");
  }
  const auto pairs = pairs_by_layer("distill_blocks.pairs", options.pairs, parent, space);
  std::vector<std::vector<PlannedStudent>> students;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    students.push_back(is_coupled ? plan_pairs(pairs[i])
                                  : plan_halves(space.layers[i], parent.layers[i]));
  }
  return students;
}

}  // namespace puzzle
