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
  BlockSpec block;                     // kNestedFfn: with the largest width
  std::vector<std::int64_t> widths{};  // kNestedFfn: ascending

  // As in VariantRow: "attention/kv1", "ffn/w768", "block/kv1/w768"; "ffn/nested" for all widths.
  [[nodiscard]] std::string name() const;
  // Of its variants, in the order of their verdicts.
  [[nodiscard]] std::vector<std::string> variant_names() const;
};

// Decoupled: every variant of the space that has weights and is not the parent's own, attention
// first; the widths of the FFN as one student where they are trained together. Coupled: the pairs
// that the layer takes (named_pairs.h). One list per layer; empty where there is nothing to train.
// Throws Error(kUsage) as distill_blocks says for pairs.
[[nodiscard]] std::vector<std::vector<PlannedStudent>> plan_students(
    const ModelSpec& parent, const SearchSpace& space, const DistillBlocksOptions& options);

}  // namespace puzzle
