// Two second-order estimates of one damage, and their combination.
#pragma once

#include <vector>

#include "puzzle/stages/score_table.h"

namespace puzzle {

// KL per token of one candidate, nats.
struct SecondOrderEstimates {
  ScoreValue per_sequence;  // ½ E[(Σ_t a_t)²] / T: unbiased to second order, noisy
  ScoreValue per_token;     // ½ E[a_t²]: little noise, misses what positions have in common
};

// One value per candidate, from all of them together. The two differ by a factor that is much the
// same for all candidates (what positions have in common) and by noise. So per-token values are
// first raised by the mean log ratio of the two, and then the two are averaged in the logarithm,
// each with the inverse of its variance: the relative standard error squared, and for the per-token
// one also the variance between candidates of that factor, as far as it is more than noise
// explains. The relative standard errors are averaged by the same weights, as if the two erred
// together. A value that is not positive takes the other.
[[nodiscard]] std::vector<ScoreValue> combine_estimates(
    const std::vector<SecondOrderEstimates>& candidates);

}  // namespace puzzle
