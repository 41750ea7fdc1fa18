// What a token counts in closed-form fits, and sums of it over ranks.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/dist/communicator.h"

namespace puzzle {

// About so many tokens, spread evenly, decide the median of ‖h‖² where computing h takes a pass.
inline constexpr std::int64_t kMedianTokens = 4096;

// Weights [..] of hidden states h [.., D] by `rule`: "none" (undefined: all 1), "inverse" (1/‖h‖²;
// `median` is 0) or "damped" (1/max(‖h‖², median)).
[[nodiscard]] at::Tensor token_weights(const at::Tensor& states, const std::string& rule,
                                       double median);

// Median of ‖h‖² over the tokens of all ranks, `mine` being this rank's; whatever the number of
// ranks is. Throws Error(kNumeric) if one of them is not finite; `place` goes into its message.
[[nodiscard]] double median_over_ranks(std::span<const float> mine, Communicator& communicator,
                                       std::string_view place);

}  // namespace puzzle
