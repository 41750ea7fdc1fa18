#include "puzzle/formats/dtype.h"

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

// Value of a small float by its definition, in double.
double decode_bits(int bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits >> (exponent_bits + mantissa_bits)) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * INFINITY : NAN;
  }
  return exponent == 0
             ? sign * std::ldexp(mantissa, 1 - bias - mantissa_bits)
             : sign * std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

struct SmallFloat {
  int exponent_bits;
  int mantissa_bits;
  float (*to_float)(std::uint16_t);
  std::uint16_t (*from_float)(float);
};

class DtypeFloats : public ::testing::TestWithParam<SmallFloat> {};

TEST_P(DtypeFloats, EveryPatternDecodesToItsValueAndBack) {
  const SmallFloat type = GetParam();
  for (int bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = type.to_float(half);
    const double expected = decode_bits(bits, type.exponent_bits, type.mantissa_bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(type.to_float(type.from_float(value)))) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << bits;
      ASSERT_EQ(type.from_float(value), half) << bits;
    }
  }
}

TEST_P(DtypeFloats, RoundsToNearestAndTiesToEven) {
  const SmallFloat type = GetParam();
  const int infinity = ((1 << type.exponent_bits) - 1) << type.mantissa_bits;
  for (int bits = 0; bits < infinity - 1; ++bits) {
    const double low = decode_bits(bits, type.exponent_bits, type.mantissa_bits);
    const double high = decode_bits(bits + 1, type.exponent_bits, type.mantissa_bits);
    const auto middle = static_cast<float>((low + high) / 2);
    for (const int sign : {0, 0x8000}) {
      const float signed_middle = sign == 0 ? middle : -middle;
      const float outer = sign == 0 ? INFINITY : -INFINITY;
      ASSERT_EQ(type.from_float(signed_middle), sign | (bits + (bits & 1))) << bits;
      ASSERT_EQ(type.from_float(std::nextafter(signed_middle, 0.0F)), sign | bits) << bits;
      ASSERT_EQ(type.from_float(std::nextafter(signed_middle, outer)), sign | (bits + 1)) << bits;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DtypeFloats,
                         ::testing::Values(SmallFloat{5, 10, f16_to_float, float_to_f16},
                                           SmallFloat{8, 7, bf16_to_float, float_to_bf16}));

TEST(Dtype, BeyondTheRangeBecomesInfinity) {
  EXPECT_EQ(float_to_f16(std::nextafter(65520.0F, 0.0F)), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0F), 0x7c00);
  EXPECT_EQ(float_to_f16(-1e30F), 0xfc00);
  EXPECT_EQ(float_to_f16(-INFINITY), 0xfc00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(Dtype, NamesAndNumbersLeadBackToTheType) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(DType::kMXFP4); ++i) {
    const auto dtype = static_cast<DType>(i);
    const DTypeInfo& info = dtype_info(dtype);
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_EQ(find_dtype(info.name), dtype);
    EXPECT_EQ(find_safetensors_dtype(info.name).has_value(), info.safetensors_rank >= 0);
    EXPECT_EQ(is_quantized(dtype), info.block_elements > 1);
    if (info.ggml_type >= 0) {
      EXPECT_EQ(find_ggml_dtype(static_cast<std::uint32_t>(info.ggml_type)), dtype);
    }
  }
  EXPECT_EQ(find_dtype("f32"), std::nullopt);
  EXPECT_EQ(find_safetensors_dtype("Q8_0"), std::nullopt);
  EXPECT_EQ(find_ggml_dtype(4), std::nullopt);
  EXPECT_EQ(find_ggml_dtype(0xffffffffU), std::nullopt);
}

TEST(Dtype, NumbersAndBlocksAreThoseOfTheGgufPackage) {
  const Json sizes = load_json(test::golden("gguf_quant.json")).at("sizes");
  int compared = 0;
  for (const auto& [name, size] : sizes.items()) {
    const std::optional<DType> dtype = find_dtype(name);
    if (dtype.has_value()) {  // newer ones are refused by number
      const DTypeInfo& info = dtype_info(*dtype);
      EXPECT_EQ(info.ggml_type, size[0].get<int>()) << name;
      EXPECT_EQ(info.block_elements, size[1].get<int>()) << name;
      EXPECT_EQ(info.block_bytes, size[2].get<int>()) << name;
      ++compared;
    }
  }
  EXPECT_GE(compared, 30);
}

TEST(Dtype, SizesCountBlocks) {
  EXPECT_EQ(byte_size(DType::kBF16, 7, "t"), 14U);
  EXPECT_EQ(byte_size(DType::kQ4_1, 64, "t"), 40U);
  EXPECT_EQ(byte_size(DType::kQ6_K, 512, "t"), 420U);
  EXPECT_EQ(byte_size(DType::kQ8_0, 0, "t"), 0U);
  EXPECT_PUZZLE_ERROR((void)byte_size(DType::kQ8_0, 33, "t"), ErrorKind::kFormat,
                      "t: 33 elements are not whole blocks of Q8_0, which hold 32 each");
}

TEST(Dtype, SizesNeverOverflow) {
  const std::uint64_t huge = 0x7fffffffffffffffU;
  EXPECT_EQ(byte_size(DType::kI8, huge, "t"), huge);
  EXPECT_PUZZLE_ERROR((void)byte_size(DType::kF16, huge, "t"), ErrorKind::kFormat, "2^63");
  const std::vector<std::int64_t> wide = {1LL << 32, 1LL << 31};
  EXPECT_PUZZLE_ERROR((void)num_elements(wide, "t"), ErrorKind::kFormat, "t: the product");
  const std::vector<std::int64_t> negative = {2, -1};
  EXPECT_PUZZLE_ERROR((void)num_elements(negative, "t"), ErrorKind::kFormat, "is -1");
  // The order must not matter: a zero last does not excuse an overflow before it.
  const std::vector<std::int64_t> empty = {1LL << 62, 0};
  EXPECT_EQ(num_elements(empty, "t"), 0U);
  const std::vector<std::int64_t> sneaky = {1LL << 62, 1LL << 62, 0};
  EXPECT_PUZZLE_ERROR((void)num_elements(sneaky, "t"), ErrorKind::kFormat, "2^63");
  EXPECT_EQ(num_elements({}, "t"), 1U);
}

}  // namespace
}  // namespace puzzle
