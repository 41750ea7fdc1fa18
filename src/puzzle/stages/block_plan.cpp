#include "puzzle/stages/block_plan.h"

#include <algorithm>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/stages/named_pairs.h"

namespace puzzle {
namespace {

// From this many widths on, "auto" trains them together.
constexpr std::size_t kFineWidths = 9;

bool trains_nested(const std::string& mode, std::size_t num_widths) {
  return mode == "auto" ? num_widths >= kFineWidths : mode == "nested" && num_widths > 0;
}

std::vector<PlannedStudent> plan_ffns(const LayerSpace& space, const BlockSpec& own,
                                      const std::string& mode) {
  std::vector<PlannedStudent> students;
  std::vector<std::int64_t> widths;
  for (const FfnSpec& ffn : space.ffn) {
    if (ffn == own.ffn || ffn.kind == FfnKind::kNone) {
      continue;
    }
    students.push_back({StudentRole::kFfn, {own.attention, ffn}});
    if (ffn.kind == FfnKind::kSwiglu) {
      widths.push_back(ffn.width);
    }
  }
  if (trains_nested(mode, widths.size())) {
    std::ranges::sort(widths);
    std::erase_if(students, [](const PlannedStudent& student) {
      return student.block.ffn.kind == FfnKind::kSwiglu;
    });
    const BlockSpec largest{own.attention, FfnSpec::swiglu(widths.back())};
    students.push_back({StudentRole::kNestedFfn, largest, widths});
  }
  return students;
}

std::vector<PlannedStudent> plan_halves(const LayerSpace& space, const BlockSpec& own,
                                        const std::string& widths_mode) {
  std::vector<PlannedStudent> students;
  for (const AttentionSpec& attention : space.attention) {
    if (attention != own.attention && attention.kind != AttentionKind::kNone) {
      students.push_back({StudentRole::kAttention, {attention, own.ffn}});
    }
  }
  const std::vector<PlannedStudent> ffns = plan_ffns(space, own, widths_mode);
  students.insert(students.end(), ffns.begin(), ffns.end());
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
    case StudentRole::kNestedFfn:
      return "ffn/nested";
    case StudentRole::kBlock:
      break;
  }
  return "block/" + block.name();
}

std::vector<std::string> PlannedStudent::variant_names() const {
  if (role != StudentRole::kNestedFfn) {
    return {name()};
  }
  std::vector<std::string> names;
  for (const std::int64_t width : widths) {
    names.push_back("ffn/" + FfnSpec::swiglu(width).name());
  }
  return names;
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
                                  : plan_halves(space.layers[i], parent.layers[i], options.widths));
  }
  return students;
}

}  // namespace puzzle
