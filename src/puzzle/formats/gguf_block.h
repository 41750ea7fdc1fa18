// What the encoders of GGUF blocks share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "puzzle/base/error.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

inline constexpr std::size_t kBlockElements = 32;
inline constexpr std::size_t kSuperBlockElements = 256;

template <class T>
void store_in_block(std::byte* to, const T& value) {
  std::memcpy(to, &value, sizeof(T));
}

// A scale or minimum as f16; its block must stay decodable. Returns what a decoder will see. Throws
// Error(kNumeric).
inline float store_block_scale(std::byte* to, float value) {
  const std::uint16_t half = float_to_f16(value);
  if ((half & 0x7c00U) == 0x7c00U) {
    fail(ErrorKind::kNumeric, "a block scale of {} does not fit into F16; values are too large",
         value);
  }
  store_in_block(to, half);
  return f16_to_float(half);
}

// Super-blocks of 256 finite elements, with the searches of llama.cpp's reference quantisers
// (docs/formats.md). Throw Error(kNumeric) for values whose scale does not fit into F16.
void encode_q4_k(const float* in, std::byte* out);
void encode_q6_k(const float* in, std::byte* out);

}  // namespace puzzle
