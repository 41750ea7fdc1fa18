#include "puzzle/formats/dtype.h"

#include <array>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr std::uint64_t kMaxTensorSize = 0x7fff'ffff'ffff'ffffU;

// In the order of the enum; checked below.
constexpr std::array kDTypes = {
    DTypeInfo{DType::kF32, "F32", 1, 4, 0, 15},
    DTypeInfo{DType::kF16, "F16", 1, 2, 1, 11},
    DTypeInfo{DType::kBF16, "BF16", 1, 2, 30, 12},
    DTypeInfo{DType::kF64, "F64", 1, 8, 28, 17},
    DTypeInfo{DType::kI8, "I8", 1, 1, 24, 5},
    DTypeInfo{DType::kU8, "U8", 1, 1, -1, 4},
    DTypeInfo{DType::kI16, "I16", 1, 2, 25, 9},
    DTypeInfo{DType::kU16, "U16", 1, 2, -1, 10},
    DTypeInfo{DType::kI32, "I32", 1, 4, 26, 13},
    DTypeInfo{DType::kU32, "U32", 1, 4, -1, 14},
    DTypeInfo{DType::kI64, "I64", 1, 8, 27, 18},
    DTypeInfo{DType::kU64, "U64", 1, 8, -1, 19},
    DTypeInfo{DType::kBool, "BOOL", 1, 1, -1, 0},
    DTypeInfo{DType::kF8E5M2, "F8_E5M2", 1, 1, -1, 6},
    DTypeInfo{DType::kF8E4M3, "F8_E4M3", 1, 1, -1, 7},
    DTypeInfo{DType::kF8E8M0, "F8_E8M0", 1, 1, -1, 8},
    DTypeInfo{DType::kC64, "C64", 1, 8, -1, 16},
    DTypeInfo{DType::kQ4_0, "Q4_0", 32, 18, 2, -1},
    DTypeInfo{DType::kQ4_1, "Q4_1", 32, 20, 3, -1},
    DTypeInfo{DType::kQ5_0, "Q5_0", 32, 22, 6, -1},
    DTypeInfo{DType::kQ5_1, "Q5_1", 32, 24, 7, -1},
    DTypeInfo{DType::kQ8_0, "Q8_0", 32, 34, 8, -1},
    DTypeInfo{DType::kQ4_K, "Q4_K", 256, 144, 12, -1},
    DTypeInfo{DType::kQ5_K, "Q5_K", 256, 176, 13, -1},
    DTypeInfo{DType::kQ6_K, "Q6_K", 256, 210, 14, -1},
    DTypeInfo{DType::kQ8_1, "Q8_1", 32, 36, 9, -1},
    DTypeInfo{DType::kQ2_K, "Q2_K", 256, 84, 10, -1},
    DTypeInfo{DType::kQ3_K, "Q3_K", 256, 110, 11, -1},
    DTypeInfo{DType::kQ8_K, "Q8_K", 256, 292, 15, -1},
    DTypeInfo{DType::kIQ2_XXS, "IQ2_XXS", 256, 66, 16, -1},
    DTypeInfo{DType::kIQ2_XS, "IQ2_XS", 256, 74, 17, -1},
    DTypeInfo{DType::kIQ3_XXS, "IQ3_XXS", 256, 98, 18, -1},
    DTypeInfo{DType::kIQ1_S, "IQ1_S", 256, 50, 19, -1},
    DTypeInfo{DType::kIQ4_NL, "IQ4_NL", 32, 18, 20, -1},
    DTypeInfo{DType::kIQ3_S, "IQ3_S", 256, 110, 21, -1},
    DTypeInfo{DType::kIQ2_S, "IQ2_S", 256, 82, 22, -1},
    DTypeInfo{DType::kIQ4_XS, "IQ4_XS", 256, 136, 23, -1},
    DTypeInfo{DType::kIQ1_M, "IQ1_M", 256, 56, 29, -1},
    DTypeInfo{DType::kTQ1_0, "TQ1_0", 256, 54, 34, -1},
    DTypeInfo{DType::kTQ2_0, "TQ2_0", 256, 66, 35, -1},
    DTypeInfo{DType::kMXFP4, "MXFP4", 32, 17, 39, -1},
};

constexpr bool in_enum_order() {
  for (std::size_t i = 0; i < kDTypes.size(); ++i) {
    if (static_cast<std::size_t>(kDTypes.at(i).dtype) != i) {
      return false;
    }
  }
  return kDTypes.size() == static_cast<std::size_t>(DType::kMXFP4) + 1;
}
static_assert(in_enum_order());

}  // namespace

const DTypeInfo& dtype_info(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  PUZZLE_CHECK(index < kDTypes.size(), "there is no DType number {}", index);
  return kDTypes[index];
}

std::optional<DType> find_dtype(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) {
      return info.dtype;
    }
  }
  return std::nullopt;
}

std::optional<DType> find_safetensors_dtype(std::string_view name) {
  const std::optional<DType> dtype = find_dtype(name);
  return dtype.has_value() && dtype_info(*dtype).safetensors_rank >= 0 ? dtype : std::nullopt;
}

std::optional<DType> find_ggml_dtype(std::uint32_t ggml_type) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.ggml_type >= 0 && static_cast<std::uint32_t>(info.ggml_type) == ggml_type) {
      return info.dtype;
    }
  }
  return std::nullopt;
}

std::uint64_t num_elements(std::span<const std::int64_t> shape, std::string_view place) {
  bool is_empty = false;
  std::uint64_t product = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) {
      fail(ErrorKind::kFormat, "{}: a dimension is {}, expected 0 or more", place, size);
    }
    const auto factor = static_cast<std::uint64_t>(size);
    if (factor == 0) {
      is_empty = true;
    } else if (product > kMaxTensorSize / factor) {
      fail(ErrorKind::kFormat, "{}: the product of the dimensions is beyond 2^63", place);
    } else {
      product *= factor;
    }
  }
  return is_empty ? 0 : product;
}

std::uint64_t byte_size(DType dtype, std::uint64_t elements, std::string_view place) {
  const DTypeInfo& info = dtype_info(dtype);
  const auto block_elements = static_cast<std::uint64_t>(info.block_elements);
  const auto block_bytes = static_cast<std::uint64_t>(info.block_bytes);
  if (elements % block_elements != 0) {
    fail(ErrorKind::kFormat, "{}: {} elements are not whole blocks of {}, which hold {} each",
         place, elements, info.name, block_elements);
  }
  const std::uint64_t blocks = elements / block_elements;
  if (blocks > kMaxTensorSize / block_bytes) {
    fail(ErrorKind::kFormat, "{}: {} elements of {} are more than 2^63 bytes", place, elements,
         info.name);
  }
  return blocks * block_bytes;
}

}  // namespace puzzle
