// Q4_K and Q6_K: scales are searched for, since the extremes of a group give poor ones. The methods
// are those of llama.cpp's reference quantisers. Compiled like gguf_encode.cpp: without
// contraction.
#include <algorithm>
#include <array>
#include <cmath>

#include "puzzle/formats/gguf_block.h"

namespace puzzle {
namespace {

// Below it a group's values count as zero.
constexpr float kSmallestScaled = 1e-15F;

// To the nearest whole number, ties to even, for |x| < 2^22; in additions, which vectorise.
float nearest_whole(float x) {
  constexpr float kShift = 12582912.0F;  // 1.5 · 2^23
  return (x + kShift) - kShift;
}

float nearest_level(float x, float lowest, float highest) {
  return std::min(std::max(nearest_whole(x), lowest), highest);
}

// Adds halves to each other: unlike a running sum it vectorises without changing its result.
template <std::size_t kCount>
float sum_of(std::array<float, kCount> values) {
  for (std::size_t half = kCount / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      values[i] += values[i + half];
    }
  }
  return values[0];
}

template <std::size_t kCount>
float weighted_sum(const std::array<float, kCount>& weights, const std::array<float, kCount>& a,
                   const std::array<float, kCount>& b) {
  std::array<float, kCount> products;
  for (std::size_t i = 0; i < kCount; ++i) {
    products[i] = weights[i] * a[i] * b[i];
  }
  return sum_of(products);
}

// ------------------------------------------------------------------------------------------- Q4_K

constexpr std::size_t kAffineGroup = 32;
constexpr std::size_t kAffineGroups = kSuperBlockElements / kAffineGroup;
constexpr float kHighestNibble = 15.0F;
constexpr float kHighestScaleCode = 63.0F;

using AffineGroup = std::array<float, kAffineGroup>;

// x ≈ scale · level - minimum with levels 0 … 15, both numbers at least 0.
struct AffineFit {
  float scale = 0.0F;
  float minimum = 0.0F;
};

// Large values count more, but none counts little.
AffineGroup group_weights(const AffineGroup& x) {
  AffineGroup ones;
  ones.fill(1.0F);
  const float rms = std::sqrt(weighted_sum(ones, x, x) / static_cast<float>(kAffineGroup));
  AffineGroup weights;
  for (std::size_t i = 0; i < kAffineGroup; ++i) {
    weights[i] = rms + std::abs(x[i]);
  }
  return weights;
}

float squared_error(const AffineGroup& weights, const AffineGroup& x, const AffineGroup& levels,
                    const AffineFit& fit) {
  AffineGroup errors;
  for (std::size_t i = 0; i < kAffineGroup; ++i) {
    const float error = fit.scale * levels[i] - fit.minimum - x[i];
    errors[i] = weights[i] * error * error;
  }
  return sum_of(errors);
}

AffineGroup levels_from(const AffineGroup& x, float low, float levels_per_unit) {
  AffineGroup levels;
  for (std::size_t i = 0; i < kAffineGroup; ++i) {
    levels[i] = nearest_level(levels_per_unit * (x[i] - low), 0.0F, kHighestNibble);
  }
  return levels;
}

// The best scale and minimum for given levels, by weighted least squares; the minimum is kept from
// going below 0. A scale of 0 where the levels are all the same.
AffineFit least_squares(const AffineGroup& weights, const AffineGroup& x,
                        const AffineGroup& levels) {
  AffineGroup ones;
  ones.fill(1.0F);
  const float w = sum_of(weights);
  const float wx = weighted_sum(weights, x, ones);
  const float wl = weighted_sum(weights, levels, ones);
  const float wll = weighted_sum(weights, levels, levels);
  const float wxl = weighted_sum(weights, x, levels);
  const float determinant = w * wll - wl * wl;
  if (!(determinant > 0.0F)) {
    return {};
  }
  const AffineFit fit{(w * wxl - wx * wl) / determinant, -(wll * wx - wl * wxl) / determinant};
  return fit.minimum < 0.0F ? AffineFit{wxl / wll, 0.0F} : fit;
}

// From the plain fit of the group's range, through 21 finenesses of the levels' grid, each followed
// by a least-squares fit; the one with the smallest error. The grid begins at the minimum of the
// best fit so far.
AffineFit fit_affine_group(const AffineGroup& x) {
  constexpr int kTrials = 21;
  const auto [lowest, highest] = std::minmax_element(x.begin(), x.end());
  const float low = std::min(*lowest, 0.0F);
  const float range = *highest - low;
  const float levels_per_unit = kHighestNibble / range;
  if (!(range > 0.0F) || !std::isfinite(levels_per_unit)) {
    return {0.0F, -low};
  }
  const AffineGroup weights = group_weights(x);
  AffineFit best{range / kHighestNibble, -low};
  float smallest = squared_error(weights, x, levels_from(x, low, levels_per_unit), best);
  for (int trial = 0; trial < kTrials; ++trial) {
    const float highest_level = kHighestNibble - 1.0F + 0.1F * static_cast<float>(trial);
    const AffineGroup levels =
        levels_from(x, -best.minimum, highest_level / (*highest + best.minimum));
    const AffineFit fit = least_squares(weights, x, levels);
    if (!(fit.scale > 0.0F)) {
      continue;
    }
    if (const float error = squared_error(weights, x, levels, fit); error < smallest) {
      smallest = error;
      best = fit;
    }
  }
  return best;
}

using GroupCodes = std::array<std::uint8_t, kAffineGroups>;

// The inverse of how gguf_quant.cpp reads them.
void store_group_codes(std::byte* to, const GroupCodes& scales, const GroupCodes& minima) {
  std::array<std::uint8_t, 12> packed;
  for (std::size_t g = 0; g < 4; ++g) {
    const unsigned scale = scales[g + 4];
    const unsigned minimum = minima[g + 4];
    packed[g] = static_cast<std::uint8_t>(scales[g] | ((scale >> 4U) << 6U));
    packed[g + 4] = static_cast<std::uint8_t>(minima[g] | ((minimum >> 4U) << 6U));
    packed[g + 8] = static_cast<std::uint8_t>((scale & 15U) | ((minimum & 15U) << 4U));
  }
  store_in_block(to, packed);
}

// Codes 0 … 63 of numbers from 0 to `largest`.
std::uint8_t scale_code(float value, float largest) {
  const float per_unit = largest > 0.0F ? kHighestScaleCode / largest : 0.0F;
  return static_cast<std::uint8_t>(nearest_level(per_unit * value, 0.0F, kHighestScaleCode));
}

// ------------------------------------------------------------------------------------------- Q6_K

constexpr std::size_t kSignedGroup = 16;
constexpr std::size_t kSignedGroups = kSuperBlockElements / kSignedGroup;
constexpr float kLowestLevel = -32.0F;
constexpr float kHighestLevel = 31.0F;

using SignedGroup = std::array<float, kSignedGroup>;

// The scale, of either sign, for x ≈ scale · level with levels -32 … 31 that has the smallest error
// weighted with x², among 19 finenesses around the one that makes the extreme value -32 levels.
float fit_signed_group(const SignedGroup& x) {
  constexpr int kTrialsPerSide = 9;
  const float extreme = *std::max_element(
      x.begin(), x.end(), [](float a, float b) { return std::abs(a) < std::abs(b); });
  if (std::abs(extreme) < kSmallestScaled) {
    return 0.0F;
  }
  SignedGroup weights;
  for (std::size_t i = 0; i < kSignedGroup; ++i) {
    weights[i] = x[i] * x[i];
  }
  float scale = 0.0F;
  float largest_gain = 0.0F;  // by how much the best scale lessens the weighted sum of x²
  const auto attempt = [&](int trial) {
    const float per_unit = (kLowestLevel - 0.1F * static_cast<float>(trial)) / extreme;
    SignedGroup levels;
    for (std::size_t i = 0; i < kSignedGroup; ++i) {
      levels[i] = nearest_level(per_unit * x[i], kLowestLevel, kHighestLevel);
    }
    const float wxl = weighted_sum(weights, x, levels);
    const float wll = weighted_sum(weights, levels, levels);
    if (wll > 0.0F && wxl * wxl > largest_gain * wll) {
      scale = wxl / wll;
      largest_gain = scale * wxl;
    }
  };
  attempt(0);
  for (int trial = -kTrialsPerSide; trial <= kTrialsPerSide; ++trial) {
    if (trial != 0) {
      attempt(trial);
    }
  }
  return scale;
}

using SixBits = std::array<std::uint8_t, kSuperBlockElements>;  // levels + 32

void store_six_bits(std::byte* to, const SixBits& q) {
  std::array<std::uint8_t, kSuperBlockElements / 2> low = {};
  std::array<std::uint8_t, kSuperBlockElements / 4> high = {};
  for (std::size_t half = 0; half < 2; ++half) {
    for (std::size_t part = 0; part < 4; ++part) {
      for (std::size_t i = 0; i < 32; ++i) {
        const unsigned value = q[128 * half + 32 * part + i];
        low[64 * half + 32 * (part % 2) + i] |=
            static_cast<std::uint8_t>((value & 15U) << (4 * (part / 2)));
        high[32 * half + i] |= static_cast<std::uint8_t>((value >> 4U) << (2 * part));
      }
    }
  }
  store_in_block(to, low);
  store_in_block(to + low.size(), high);
}

}  // namespace

void encode_q4_k(const float* in, std::byte* out) {
  std::array<AffineFit, kAffineGroups> fits;
  float largest_scale = 0.0F;
  float largest_minimum = 0.0F;
  for (std::size_t g = 0; g < kAffineGroups; ++g) {
    AffineGroup x;
    std::copy_n(in + kAffineGroup * g, kAffineGroup, x.begin());
    fits[g] = fit_affine_group(x);
    largest_scale = std::max(largest_scale, fits[g].scale);
    largest_minimum = std::max(largest_minimum, fits[g].minimum);
  }
  const float d = store_block_scale(out, largest_scale / kHighestScaleCode);
  const float d_min = store_block_scale(out + 2, largest_minimum / kHighestScaleCode);
  GroupCodes scales;
  GroupCodes minima;
  std::array<std::uint8_t, kSuperBlockElements> levels = {};
  for (std::size_t g = 0; g < kAffineGroups; ++g) {
    scales[g] = scale_code(fits[g].scale, largest_scale);
    minima[g] = scale_code(fits[g].minimum, largest_minimum);
    const float scale = d * static_cast<float>(scales[g]);
    const float minimum = d_min * static_cast<float>(minima[g]);
    for (std::size_t i = kAffineGroup * g; scale > 0.0F && i < kAffineGroup * (g + 1); ++i) {
      levels[i] =
          static_cast<std::uint8_t>(nearest_level((in[i] + minimum) / scale, 0.0F, kHighestNibble));
    }
  }
  store_group_codes(out + 4, scales, minima);
  std::array<std::uint8_t, kSuperBlockElements / 2> nibbles;
  for (std::size_t pair = 0; pair < kAffineGroups / 2; ++pair) {
    for (std::size_t i = 0; i < 32; ++i) {
      nibbles[32 * pair + i] =
          static_cast<std::uint8_t>(levels[64 * pair + i] | (levels[64 * pair + 32 + i] << 4));
    }
  }
  store_in_block(out + 16, nibbles);
}

void encode_q6_k(const float* in, std::byte* out) {
  constexpr float kExtremeScaleCode = -128.0F;
  std::byte* const scale_at = out + 208;
  // Before the sums of fourth powers overflow.
  const float largest = std::abs(*std::max_element(
      in, in + kSuperBlockElements, [](float a, float b) { return std::abs(a) < std::abs(b); }));
  store_block_scale(scale_at, largest / (kLowestLevel * kExtremeScaleCode));
  std::array<float, kSignedGroups> fits;
  float extreme = 0.0F;
  for (std::size_t g = 0; g < kSignedGroups; ++g) {
    SignedGroup x;
    std::copy_n(in + kSignedGroup * g, kSignedGroup, x.begin());
    fits[g] = fit_signed_group(x);
    extreme = std::abs(fits[g]) > std::abs(extreme) ? fits[g] : extreme;
  }
  // The extreme scale, of either sign, becomes exactly code -128.
  const float d = store_block_scale(scale_at, extreme / kExtremeScaleCode);
  const float codes_per_unit =
      std::abs(extreme) < kSmallestScaled ? 0.0F : kExtremeScaleCode / extreme;
  std::array<std::int8_t, kSignedGroups> codes;
  SixBits levels;
  levels.fill(static_cast<std::uint8_t>(-kLowestLevel));
  for (std::size_t g = 0; g < kSignedGroups; ++g) {
    codes[g] = static_cast<std::int8_t>(
        nearest_level(codes_per_unit * fits[g], kExtremeScaleCode, 127.0F));
    const float scale = d * static_cast<float>(codes[g]);
    for (std::size_t i = kSignedGroup * g; scale != 0.0F && i < kSignedGroup * (g + 1); ++i) {
      levels[i] = static_cast<std::uint8_t>(
          nearest_level(in[i] / scale, kLowestLevel, kHighestLevel) - kLowestLevel);
    }
  }
  store_six_bits(out, levels);
  store_in_block(out + 192, codes);
}

}  // namespace puzzle
