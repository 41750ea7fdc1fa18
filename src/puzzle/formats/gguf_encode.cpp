#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "puzzle/base/error.h"
#include "puzzle/formats/gguf_block.h"
#include "puzzle/formats/gguf_quant.h"

// Compiled like gguf_quant.cpp: without contraction, so that results do not depend on the machine.

namespace puzzle {
namespace {

// ---- encoders of one block: `in` holds its elements, `out` takes its bytes ----

template <std::size_t kElements>
void check_finite(const float* values) {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < kElements; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  }
  if (largest >= 0x7f800000U) {
    fail(ErrorKind::kNumeric, "a value to quantise is not finite");
  }
}

// 1 / scale; 0 where that overflows, since such a scale is 0 in F16 anyway.
float inverse_scale(float scale) {
  const float inverse = 1.0F / scale;
  return std::isfinite(inverse) ? inverse : 0.0F;
}

void store_nibbles(std::byte* to, const std::array<std::uint8_t, kBlockElements>& values) {
  std::array<std::uint8_t, kBlockElements / 2> packed;
  for (std::size_t i = 0; i < kBlockElements / 2; ++i) {
    packed[i] = static_cast<std::uint8_t>(values[i] | (values[i + kBlockElements / 2] << 4));
  }
  store_in_block(to, packed);
}

void encode_q8_0(const float* in, std::byte* out) {
  float largest = 0.0F;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    largest = std::max(largest, std::abs(in[i]));
  }
  const float scale = largest / 127.0F;
  const float inverse = inverse_scale(scale);
  std::array<std::int8_t, kBlockElements> q;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    // Half away from zero.
    const float value = in[i] * inverse;
    const auto whole = static_cast<std::int32_t>(value);
    const float fraction = value - static_cast<float>(whole);
    q[i] = static_cast<std::int8_t>(whole + static_cast<std::int32_t>(fraction >= 0.5F) -
                                    static_cast<std::int32_t>(fraction <= -0.5F));
  }
  store_block_scale(out, scale);
  store_in_block(out + 2, q);
}

void encode_q4_0(const float* in, std::byte* out) {
  // The first of the values of largest magnitude becomes exactly -8 scales.
  float extreme = 0.0F;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    extreme = std::abs(in[i]) > std::abs(extreme) ? in[i] : extreme;
  }
  const float scale = extreme / -8.0F;
  const float inverse = inverse_scale(scale);
  std::array<std::uint8_t, kBlockElements> q;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    const auto value = static_cast<std::int32_t>(in[i] * inverse + 8.5F);
    q[i] = static_cast<std::uint8_t>(std::min(15, value));
  }
  store_block_scale(out, scale);
  store_nibbles(out + 2, q);
}

// As Q4_0 with a fifth bit.
void encode_q5_0(const float* in, std::byte* out) {
  float extreme = 0.0F;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    extreme = std::abs(in[i]) > std::abs(extreme) ? in[i] : extreme;
  }
  const float scale = extreme / -16.0F;
  const float inverse = inverse_scale(scale);
  std::array<std::uint8_t, kBlockElements> low;
  std::uint32_t fifth_bits = 0;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    const auto value = static_cast<std::uint32_t>(
        std::min(31, static_cast<std::int32_t>(in[i] * inverse + 16.5F)));
    low[i] = static_cast<std::uint8_t>(value & 15U);
    fifth_bits |= (value >> 4U) << i;
  }
  store_block_scale(out, scale);
  store_in_block(out + 2, fifth_bits);
  store_nibbles(out + 6, low);
}

void encode_q4_1(const float* in, std::byte* out) {
  float low = in[0];
  float high = in[0];
  for (std::size_t i = 1; i < kBlockElements; ++i) {
    low = std::min(low, in[i]);
    high = std::max(high, in[i]);
  }
  const float scale = (high - low) / 15.0F;
  const float inverse = inverse_scale(scale);
  std::array<std::uint8_t, kBlockElements> q;
  for (std::size_t i = 0; i < kBlockElements; ++i) {
    // As llama.cpp rounds, which lround() does not.
    // NOLINTNEXTLINE(bugprone-incorrect-roundings)
    const auto value = static_cast<std::int32_t>((in[i] - low) * inverse + 0.5F);
    q[i] = static_cast<std::uint8_t>(std::min(15, value));
  }
  store_block_scale(out, scale);
  store_block_scale(out + 2, low);
  store_nibbles(out + 4, q);
}

template <auto kEncode, std::size_t kElements = kBlockElements>
void encode_blocks(std::span<const float> in, std::size_t block_bytes, std::byte* out) {
  for (std::size_t block = 0; block < in.size() / kElements; ++block) {
    const float* values = in.data() + block * kElements;
    check_finite<kElements>(values);
    kEncode(values, out + block * block_bytes);
  }
}

// Through local arrays, so that it vectorises.
template <auto kConvert>
void encode_halves(std::span<const float> in, std::byte* out) {
  std::array<float, kBlockElements> values = {};
  std::array<std::uint16_t, kBlockElements> halves;
  for (std::size_t start = 0; start < in.size(); start += kBlockElements) {
    const std::size_t count = std::min(kBlockElements, in.size() - start);
    std::memcpy(values.data(), in.data() + start, count * sizeof(float));
    for (std::size_t i = 0; i < kBlockElements; ++i) {
      halves[i] = kConvert(values[i]);
    }
    std::memcpy(out + 2 * start, halves.data(), 2 * count);
  }
}

}  // namespace

bool can_quantize(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ4_K:
    case DType::kQ6_K:
      return true;
    default:
      return false;
  }
}

void quantize(DType dtype, std::span<const float> in, std::int64_t row_length,
              std::vector<std::byte>& out) {
  if (!can_quantize(dtype)) {
    fail(ErrorKind::kUsage,
         "weights cannot be written as {}; choose F32, F16, BF16, Q8_0, Q5_0, Q4_0, Q4_1, Q4_K or "
         "Q6_K",
         dtype_name(dtype));
  }
  const DTypeInfo& info = dtype_info(dtype);
  if (row_length <= 0 || row_length % info.block_elements != 0) {
    fail(
        ErrorKind::kUsage,
        "a row of {} elements cannot be written as {}: its length must be a multiple of {}; choose "
        "F16 for this tensor or another width",
        row_length, info.name, info.block_elements);
  }
  PUZZLE_CHECK(in.size() % static_cast<std::size_t>(row_length) == 0,
               "{} elements are not whole rows of {}", in.size(), row_length);
  const auto block_bytes = static_cast<std::size_t>(info.block_bytes);
  const std::size_t start = out.size();
  out.resize(start + byte_size(dtype, in.size(), "quantize"));
  std::byte* to = out.data() + start;
  switch (dtype) {
    case DType::kF16:
      encode_halves<float_to_f16>(in, to);
      break;
    case DType::kBF16:
      encode_halves<float_to_bf16>(in, to);
      break;
    case DType::kQ8_0:
      encode_blocks<encode_q8_0>(in, block_bytes, to);
      break;
    case DType::kQ4_0:
      encode_blocks<encode_q4_0>(in, block_bytes, to);
      break;
    case DType::kQ4_1:
      encode_blocks<encode_q4_1>(in, block_bytes, to);
      break;
    case DType::kQ5_0:
      encode_blocks<encode_q5_0>(in, block_bytes, to);
      break;
    case DType::kQ4_K:
      encode_blocks<encode_q4_k, kSuperBlockElements>(in, block_bytes, to);
      break;
    case DType::kQ6_K:
      encode_blocks<encode_q6_k, kSuperBlockElements>(in, block_bytes, to);
      break;
    default:
      std::ranges::copy(std::as_bytes(in), to);
      break;
  }
}

}  // namespace puzzle
