#include "puzzle/stages/block_plan.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

struct NamedPair {
  std::optional<std::int64_t> layer;  // every layer otherwise
  BlockSpec block;
};

NamedPair parse_named_pair(const std::string& text, std::int64_t num_layers) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return {std::nullopt, parse_block(text)};
  }
  std::int64_t layer = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + colon, layer);
  if (error != std::errc() || end != text.data() + colon || layer < 0 || layer >= num_layers) {
    fail(ErrorKind::kUsage,
         "distill_blocks.pairs: '{}': expected a layer from 0 to {} before the colon", text,
         num_layers - 1);
  }
  return {layer, parse_block(text.substr(colon + 1))};
}

bool is_trainable(const BlockSpec& block, const BlockSpec& own) {
  const bool is_empty =
      block.attention.kind == AttentionKind::kNone && block.ffn.kind == FfnKind::kNone;
  return block != own && !is_empty;
}

bool holds_block(const LayerSpace& space, const BlockSpec& block) {
  return std::ranges::find(space.attention, block.attention) != space.attention.end() &&
         std::ranges::find(space.ffn, block.ffn) != space.ffn.end();
}

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

void plan_pair(const std::string& text, const ModelSpec& parent, const SearchSpace& space,
               std::vector<std::vector<PlannedStudent>>& students) {
  const NamedPair pair = parse_named_pair(text, parent.num_layers());
  bool is_used = false;
  for (std::size_t i = 0; i < students.size(); ++i) {
    const bool is_meant = !pair.layer.has_value() || *pair.layer == static_cast<std::int64_t>(i);
    if (!is_meant || !holds_block(space.layers[i], pair.block) ||
        !is_trainable(pair.block, parent.layers[i])) {
      continue;
    }
    is_used = true;
    const bool is_new = std::ranges::none_of(
        students[i], [&](const PlannedStudent& student) { return student.block == pair.block; });
    if (is_new) {
      students[i].push_back({StudentRole::kBlock, pair.block});
    }
  }
  if (!is_used) {
    fail(ErrorKind::kUsage,
         "distill_blocks.pairs: '{}': no layer it names has both halves in its search space and "
         "something to train",
         text);
  }
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
  PUZZLE_CHECK(std::ssize(space.layers) == parent.num_layers(),
               "a search space of {} layers, parent {}", space.layers.size(), parent.num_layers());
  const bool is_coupled = options.mode == "coupled";
  if (is_coupled == options.pairs.empty()) {
    fail(ErrorKind::kUsage, "distill_blocks: mode is {} and {} pairs are named; {}", options.mode,
         options.pairs.size(),
         is_coupled ? "name at least one in distill_blocks.pairs"
                    : "set distill_blocks.mode to coupled, or take the pairs out");
  }
  std::vector<std::vector<PlannedStudent>> students(space.layers.size());
  for (const std::string& pair : options.pairs) {
    plan_pair(pair, parent, space, students);
  }
  for (std::size_t i = 0; i < students.size() && !is_coupled; ++i) {
    students[i] = plan_halves(space.layers[i], parent.layers[i]);
  }
  return students;
}

}  // namespace puzzle
