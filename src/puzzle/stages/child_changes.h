// What one more swap would do to a child: second-order estimates of the change of its KL.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/stages/score_table.h"

namespace puzzle {

struct ChangeOptions {
  std::int64_t batch_windows = 8;  // walked at a time
  std::int64_t samples = 4;        // labels drawn per position
};

// By layer and block name.
using BlockChanges = std::vector<std::map<std::string, ScoreValue>>;

// For every block of the space: KL(parent ‖ child with that block in that layer) −
// KL(parent ‖ child), nats per token; 0 for the child's own blocks. With δ_t the change of the
// layer's output on the child's own input, ∇_t the gradient of the KL there and g_t that of the
// log-probability of labels drawn from the child,
//
//   change ≈ E⟨∇_t, δ_t⟩ + ½ E⟨g_t, δ_t⟩²,
//
// since the second derivative of KL(p ‖ q) by q's logits is q's Fisher information whatever p is.
// The second term is estimated per sequence and per position and combined (score_estimates.h).
// Pairs of an attention and an FFN variant come from the sum of their ⟨·, δ⟩, an attention variant
// being taken with the child's FFN behind it; pairs that were trained together are evaluated.
//
// Windows are split over ranks, all of which call this; the result is the same on each. Throws
// Error(kUsage) for a variant that the library does not hold, Error(kNumeric) naming the block for
// activations that are not finite.
[[nodiscard]] BlockChanges estimate_changes(RunContext& context, const LoadedModel& parent,
                                            const std::filesystem::path& library_folder,
                                            const SearchSpace& space, const Architecture& child,
                                            const TokenPart& part, const ChangeOptions& options);

}  // namespace puzzle
