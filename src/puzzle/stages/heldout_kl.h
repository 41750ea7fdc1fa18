// KL of a child to its parent on held-out text, for stages that decide by it.
#pragma once

#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// Mean KL(parent ‖ child) over the part's tokens, nats per token. Windows are split over ranks;
// every rank gets the same number. No gradients.
[[nodiscard]] double heldout_kl(const LoadedModel& parent, const ModelWeights& child,
                                const TokenPart& part, Communicator& communicator);

// The same by independent units (independent_windows.h): sums over each unit's tokens, as many on
// every rank.
[[nodiscard]] std::vector<double> heldout_kl_sums(const LoadedModel& parent,
                                                  const ModelWeights& child, const TokenPart& part,
                                                  Communicator& communicator);
// Tokens of each unit.
[[nodiscard]] std::vector<double> unit_tokens(const TokenPart& part);

}  // namespace puzzle
