// What stages hold in memory and on disk, from shapes alone.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/arch/model_spec.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/data/data_options.h"
#include "puzzle/stages/block_plan.h"

namespace puzzle {

inline constexpr double kFp32Bytes = 4.0;
inline constexpr double kBytesPerToken = 4.0;  // of text
inline constexpr double kMib = 1048576.0;

// Of a layer's variants in a library: as init-library makes them, and what block-local distillation
// adds where it trains each width on its own, or all of them as one.
struct VariantBytes {
  double initial = 0.0;
  double trained = 0.0;
};

[[nodiscard]] VariantBytes variant_bytes(const ModelSpec& spec, const LayerSpace& layer,
                                         const BlockSpec& own,
                                         const std::vector<PlannedStudent>& students);

// fp64 sums of a layer's fits and the elimination's copies of the largest.
[[nodiscard]] double fit_bytes(const ModelSpec& spec);

// Text that is tokenised: the files where they are there, else what the parts need.
[[nodiscard]] double corpus_bytes(const DataOptions& data);

// Hidden states that a stage holds: in memory up to a limit, the rest in a scratch file.
struct HeldBytes {
  double memory = 0.0;
  double disk = 0.0;
};

[[nodiscard]] HeldBytes held_bytes(const ModelSpec& spec, std::int64_t tokens,
                                   std::int64_t limit_mib);

}  // namespace puzzle
