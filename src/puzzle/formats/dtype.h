// Element types of stored tensors: names, block sizes, and half-precision conversions.
//
// Sources: safetensors' Dtype names; ggml's type numbers and block layouts (docs/formats.md).
// All files are little-endian, and so must the machine be.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace puzzle {

static_assert(std::endian::native == std::endian::little, "tensors are mapped, not byte-swapped");

enum class DType : std::uint8_t {
  // one element per block
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kU8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kBool,
  // known by size only
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kC64,
  // ggml blocks that gguf_quant decodes
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ8_1,
  kQ2_K,
  kQ3_K,
  kQ8_K,
  // ggml blocks known by size only
  kIQ2_XXS,
  kIQ2_XS,
  kIQ3_XXS,
  kIQ1_S,
  kIQ4_NL,
  kIQ3_S,
  kIQ2_S,
  kIQ4_XS,
  kIQ1_M,
  kTQ1_0,
  kTQ2_0,
  kMXFP4,
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;        // "F32", "Q4_1": as ggml and safetensors write it
  std::int64_t block_elements;  // 1 for plain types
  std::int64_t block_bytes;
  std::int32_t ggml_type;         // -1: cannot stand in a GGUF file
  std::int32_t safetensors_rank;  // order of the reference writer; -1: not a safetensors type
};

[[nodiscard]] const DTypeInfo& dtype_info(DType dtype);
[[nodiscard]] inline std::string_view dtype_name(DType dtype) { return dtype_info(dtype).name; }
[[nodiscard]] inline bool is_quantized(DType dtype) { return dtype_info(dtype).block_elements > 1; }

// By name, in the given case: "BF16", "Q8_0". Plain names are also the safetensors names.
[[nodiscard]] std::optional<DType> find_dtype(std::string_view name);
[[nodiscard]] std::optional<DType> find_safetensors_dtype(std::string_view name);
[[nodiscard]] std::optional<DType> find_ggml_dtype(std::uint32_t ggml_type);

// Product of a shape from a file; 1 for rank 0. `place` opens the message. Throws Error(kFormat)
// for a negative dimension or a product beyond 2^63 - 1.
[[nodiscard]] std::uint64_t num_elements(std::span<const std::int64_t> shape,
                                         std::string_view place);

// Bytes of `elements` packed elements. Throws Error(kFormat) if they do not fill whole blocks or
// the size exceeds 2^63 - 1.
[[nodiscard]] std::uint64_t byte_size(DType dtype, std::uint64_t elements, std::string_view place);

// Branch-free, so that loops over them vectorise. Exact; NaN stays NaN.
[[nodiscard]] constexpr float f16_to_float(std::uint16_t half) {
  const std::uint32_t magnitude = half & 0x7fffU;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16U;
  // Exponent bias 15 -> 127; infinities and NaN move by 112 once more, to 255.
  const std::uint32_t normal =
      (magnitude << 13U) + (112U << 23U) + (magnitude >= 0x7c00U ? 112U << 23U : 0U);
  const auto subnormal = std::bit_cast<std::uint32_t>(
      static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F);
  return std::bit_cast<float>(sign | (magnitude < 0x0400U ? subnormal : normal));
}

[[nodiscard]] constexpr float bf16_to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16U);
}

// Round to nearest, ties to even; beyond the range becomes infinity, NaN stays a (quiet) NaN.
[[nodiscard]] constexpr std::uint16_t float_to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  const std::uint32_t normal =
      ((magnitude + 0xfffU + ((magnitude >> 13U) & 1U)) >> 13U) - (112U << 10U);
  // In [0.5, 1) one unit in the last place of a float is 2^-24, that of a subnormal half.
  const std::uint32_t small = magnitude < 0x38800000U ? magnitude : 0U;
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(small) + 0.5F) - 0x3f000000U;
  std::uint32_t half = magnitude < 0x38800000U ? subnormal : normal;
  half = magnitude >= 0x477ff000U ? 0x7c00U : half;
  half = magnitude > 0x7f800000U ? 0x7e00U : half;
  return static_cast<std::uint16_t>(sign | half);
}

[[nodiscard]] constexpr std::uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U;
  const std::uint32_t nan = (bits >> 16U) | 0x40U;
  return static_cast<std::uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? nan : rounded);
}

}  // namespace puzzle
