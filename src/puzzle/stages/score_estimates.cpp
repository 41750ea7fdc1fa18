#include "puzzle/stages/score_estimates.h"

#include <algorithm>
#include <cmath>

namespace puzzle {
namespace {

double relative_variance(const ScoreValue& estimate) {
  const double error = estimate.standard_error / estimate.value;
  return error * error;
}

bool both_positive(const SecondOrderEstimates& candidate) {
  return candidate.per_sequence.value > 0.0 && candidate.per_token.value > 0.0;
}

double log_ratio(const SecondOrderEstimates& candidate) {
  return std::log(candidate.per_sequence.value / candidate.per_token.value);
}

// Of the log ratio per sequence / per token over candidates.
struct RatioSpread {
  double mean = 0.0;
  double variance = 0.0;  // beyond noise
};

RatioSpread ratio_spread(const std::vector<SecondOrderEstimates>& candidates) {
  double count = 0.0;
  double sum = 0.0;
  double noise = 0.0;
  for (const SecondOrderEstimates& candidate : candidates) {
    if (both_positive(candidate)) {
      count += 1.0;
      sum += log_ratio(candidate);
      noise += relative_variance(candidate.per_sequence) + relative_variance(candidate.per_token);
    }
  }
  if (count == 0.0) {
    return {};
  }
  RatioSpread spread{.mean = sum / count};
  double squares = 0.0;
  for (const SecondOrderEstimates& candidate : candidates) {
    if (both_positive(candidate)) {
      squares += std::pow(log_ratio(candidate) - spread.mean, 2);
    }
  }
  spread.variance = std::max(0.0, (squares - noise) / count);
  return spread;
}

}  // namespace

std::vector<ScoreValue> combine_estimates(const std::vector<SecondOrderEstimates>& candidates) {
  constexpr double kLeastVariance = 1e-6;  // keeps weights finite where an error is not known
  const RatioSpread spread = ratio_spread(candidates);
  std::vector<ScoreValue> combined;
  for (const SecondOrderEstimates& candidate : candidates) {
    if (!both_positive(candidate)) {
      combined.push_back(candidate.per_sequence.value > 0.0 ? candidate.per_sequence
                                                            : candidate.per_token);
      continue;
    }
    const double sequence_weight =
        1.0 / (relative_variance(candidate.per_sequence) + kLeastVariance);
    const double token_variance =
        relative_variance(candidate.per_token) + spread.variance + kLeastVariance;
    const double share = sequence_weight / (sequence_weight + 1.0 / token_variance);
    const double log_value = share * std::log(candidate.per_sequence.value) +
                             (1.0 - share) * (std::log(candidate.per_token.value) + spread.mean);
    const double value = std::exp(log_value);
    const double relative_error =
        share * candidate.per_sequence.standard_error / candidate.per_sequence.value +
        (1.0 - share) * std::sqrt(token_variance);
    combined.push_back({value, value * relative_error});
  }
  return combined;
}

}  // namespace puzzle
