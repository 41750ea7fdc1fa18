// Numbers of the GGUF format that its reader and its writer share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace puzzle {

constexpr std::uint32_t kGgufVersion = 3;
constexpr std::uint64_t kGgufAlignment = 32;
constexpr std::size_t kMaxGgufNameBytes = 63;  // of tensors; ggml keeps 64 with the NUL
constexpr std::uint32_t kMaxGgufRank = 4;

enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// The type of a C++ value, and its name for people.
struct GgufTypeInfo {
  GgufType type;
  const char* name;
};

template <class T>
inline constexpr GgufTypeInfo kGgufTypeOf{};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::uint8_t>{GgufType::kU8, "u8"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::int8_t>{GgufType::kI8, "i8"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::uint16_t>{GgufType::kU16, "u16"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::int16_t>{GgufType::kI16, "i16"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::uint32_t>{GgufType::kU32, "u32"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::int32_t>{GgufType::kI32, "i32"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<float>{GgufType::kF32, "f32"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<bool>{GgufType::kBool, "bool"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::string>{GgufType::kString, "string"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::uint64_t>{GgufType::kU64, "u64"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<std::int64_t>{GgufType::kI64, "i64"};
template <>
inline constexpr GgufTypeInfo kGgufTypeOf<double>{GgufType::kF64, "f64"};

[[nodiscard]] constexpr std::uint64_t padded_size(std::uint64_t size, std::uint64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

}  // namespace puzzle
