// What a token counts in closed-form fits (DESIGN 3), and sums of it over ranks.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/dist/communicator.h"

namespace puzzle {

// About so many tokens, spread evenly, decide the median of ‖h‖².
inline constexpr std::int64_t kMedianTokens = 4096;

// Weights [..] of hidden states h [.., D] by `rule`: "none" (undefined: all 1), "inverse" (1/‖h‖²;
// `median` is 0) or "damped" (1/max(‖h‖², median)).
[[nodiscard]] at::Tensor token_weights(const at::Tensor& states, const std::string& rule,
                                       double median);

// Every rank's numbers in the order of the ranks.
[[nodiscard]] std::vector<float> gather_floats(std::span<const float> mine,
                                               Communicator& communicator);

}  // namespace puzzle
