// Which students block-local distillation has in each layer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/stages/block_student.h"
#include "puzzle/stages/distill_blocks.h"

namespace puzzle {

struct PlannedStudent {
  StudentRole role = StudentRole::kBlock;
  BlockSpec block;

  // As in VariantRow: "attention/kv1", "ffn/w768", "block/kv1/w768".
  [[nodiscard]] std::string name() const;
};

// Decoupled: every variant of the space that has weights and is not the parent's own, attention
// first. Coupled: the pairs that the layer takes (named_pairs.h). One list per layer; empty where
// there is nothing to train. Throws Error(kUsage) as distill_blocks says for pairs.
[[nodiscard]] std::vector<std::vector<PlannedStudent>> plan_students(
    const ModelSpec& parent, const SearchSpace& space, const DistillBlocksOptions& options);

}  // namespace puzzle
