// ggml's block formats <-> float32.
//
// A block holds 32 or 256 consecutive elements of a row with their scale(s); layouts are in
// docs/formats.md. Pieces of whole blocks may be converted independently, also in several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "puzzle/formats/dtype.h"

namespace puzzle {

// What can_dequantize() is true for; for messages.
inline constexpr std::string_view kDequantizedTypes =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K";
[[nodiscard]] bool can_dequantize(DType dtype);
// F32, F16, BF16, Q8_0, Q5_0, Q4_0, Q4_1, Q4_K, Q6_K.
[[nodiscard]] bool can_quantize(DType dtype);

// Decodes out.size() elements; `in` need not be aligned. Results have the bits of ggml's reference
// decoder. Throws Error(kFormat) for a type without a decoder or for sizes that do not fit.
void dequantize(DType dtype, std::span<const std::byte> in, std::span<float> out);

// Encodes whole rows of `row_length` elements and appends them to `out`. Rounding is that of ggml's
// reference quantisers, so encoding what `dequantize` gave reproduces blocks that were made by them
// (see docs/formats.md for when bits differ). Throws Error(kUsage) for a type without an encoder or
// a row length that is not a multiple of the block, Error(kNumeric) for non-finite values in a
// block type.
void quantize(DType dtype, std::span<const float> in, std::int64_t row_length,
              std::vector<std::byte>& out);

}  // namespace puzzle
