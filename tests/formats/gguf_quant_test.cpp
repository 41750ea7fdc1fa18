#include "puzzle/formats/gguf_quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "puzzle/formats/gguf.h"
#include "support/expect_error.h"
#include "support/shared_data.h"

namespace puzzle {
namespace {

const std::vector<DType> kBlockTypes = {DType::kQ8_0, DType::kQ5_0, DType::kQ4_0, DType::kQ4_1};

std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    // Scales from block to block differ by up to 2^16.
    const int exponent = static_cast<int>((i / 32 * 7) % 17) - 10;
    const double unit = static_cast<double>(generator() >> 11) * 0x1p-53;
    values[i] = static_cast<float>(std::ldexp(2 * unit - 0.7, exponent));
  }
  return values;
}

std::vector<float> decode(DType dtype, std::span<const std::byte> bytes, std::size_t count) {
  std::vector<float> values(count);
  dequantize(dtype, bytes, values);
  return values;
}

std::vector<std::byte> encode(DType dtype, std::span<const float> values) {
  std::vector<std::byte> bytes;
  quantize(dtype, values, static_cast<std::int64_t>(values.size()), bytes);
  return bytes;
}

TEST(GgufQuant, DecodesToTheBitsOfTheGgufPackage) {
  const Json record = load_json(test::golden("gguf_quant.json")).at("decode");
  EXPECT_EQ(record.size(), 12U);
  for (const auto& [name, entry] : record.items()) {
    const DType dtype = find_dtype(name).value();
    const std::string bytes = test::from_hex(entry.at("bytes").get<std::string>());
    const std::string expected = test::from_hex(entry.at("values").get<std::string>());
    const std::vector<float> values =
        decode(dtype, test::as_byte_span(bytes), expected.size() / sizeof(float));
    const std::vector<float> wanted = test::to_floats(expected);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(wanted[i]))
          << name << " element " << i << ": " << values[i] << ", expected " << wanted[i];
    }
  }
}

// ggml keeps these for dot products and the package does not decode them: a scale and signed bytes,
// then (Q8_1: before the bytes) sums that decoding does not need.
TEST(GgufQuant, TypesOfDotProductsAreScaleTimesBytes) {
  const std::vector<std::int8_t> q = {-128, -1, 0, 1, 127, 50};
  for (const DType dtype : {DType::kQ8_1, DType::kQ8_K}) {
    const bool is_k = dtype == DType::kQ8_K;
    const auto elements = static_cast<std::size_t>(dtype_info(dtype).block_elements);
    std::vector<std::byte> bytes;
    std::vector<float> wanted;
    for (const float scale : {0.25F, -3.0F}) {
      std::vector<std::byte> block(is_k ? 292 : 36, std::byte{0x55});
      if (is_k) {
        std::memcpy(block.data(), &scale, sizeof(scale));
      } else {
        const std::uint16_t half = float_to_f16(scale);
        std::memcpy(block.data(), &half, sizeof(half));
      }
      for (std::size_t i = 0; i < elements; ++i) {
        block[4 + i] = static_cast<std::byte>(q[i % q.size()]);
        wanted.push_back(scale * static_cast<float>(q[i % q.size()]));
      }
      bytes.insert(bytes.end(), block.begin(), block.end());
    }
    EXPECT_EQ(decode(dtype, bytes, wanted.size()), wanted) << dtype_name(dtype);
  }
}

TEST(GgufQuant, EncodesToTheBytesOfTheGgufPackage) {
  const Json record = load_json(test::golden("gguf_quant.json")).at("encode");
  const std::vector<float> values =
      test::to_floats(test::from_hex(record.at("values").get<std::string>()));
  for (const char* name : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"}) {
    const std::string expected = test::from_hex(record.at(name).get<std::string>());
    const std::string bytes = test::to_text(encode(find_dtype(name).value(), values));
    ASSERT_EQ(bytes.size(), expected.size()) << name;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      ASSERT_EQ(bytes[i], expected[i]) << name << " byte " << i;
    }
  }
}

TEST(GgufQuant, UnalignedInputAndOddCountsDecode) {
  const std::vector<float> values = random_values(77, 3);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<std::byte> bytes(1);
    quantize(dtype, values, 77, bytes);
    const std::vector<float> back = decode(dtype, std::span(bytes).subspan(1), 77);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float expected = dtype == DType::kF32   ? values[i]
                             : dtype == DType::kF16 ? f16_to_float(float_to_f16(values[i]))
                                                    : bf16_to_float(float_to_bf16(values[i]));
      ASSERT_EQ(back[i], expected) << dtype_name(dtype) << " element " << i;
    }
  }
}

TEST(GgufQuant, ErrorStaysWithinHalfAStep) {
  const std::vector<float> values = random_values(32 * 500, 4);
  for (const DType dtype : kBlockTypes) {
    const std::vector<float> back = decode(dtype, encode(dtype, values), values.size());
    for (std::size_t block = 0; block < values.size(); block += 32) {
      const auto [low, high] = std::minmax_element(values.begin() + static_cast<long>(block),
                                                   values.begin() + static_cast<long>(block) + 32);
      const double largest = std::max(std::abs(*low), std::abs(*high));
      // Q4_0 and Q5_0 have one step less on the side away from the extreme value.
      const double step = dtype == DType::kQ8_0   ? largest / 127
                          : dtype == DType::kQ5_0 ? 2 * largest / 16
                          : dtype == DType::kQ4_0 ? 2 * largest / 8
                                                  : (*high - *low) / 15.0;
      // Scales and minima are rounded to F16, which below 2^-14 means to multiples of 2^-24.
      const double steps = dtype == DType::kQ8_0 ? 127 : dtype == DType::kQ5_0 ? 32 : 16;
      const double bound = step / 2 + largest * 0x1p-10 + steps * 0x1p-25;
      for (std::size_t i = block; i < block + 32; ++i) {
        ASSERT_NEAR(values[i], back[i], bound) << dtype_name(dtype) << " element " << i;
      }
    }
  }
}

TEST(GgufQuant, EncodingDecodedBlocksReproducesTheirBytes) {
  const std::vector<float> values = random_values(32 * 2000, 5);
  for (const DType dtype : kBlockTypes) {
    const std::vector<std::byte> once = encode(dtype, values);
    const std::vector<std::byte> twice = encode(dtype, decode(dtype, once, values.size()));
    EXPECT_TRUE(once == twice) << dtype_name(dtype);
  }
}

TEST(GgufQuant, TinyAndHugeValuesStayFinite) {
  std::vector<float> values(32, 1e-40F);
  values[3] = -2e-40F;
  for (const DType dtype : kBlockTypes) {
    for (const float value : decode(dtype, encode(dtype, values), 32)) {
      EXPECT_EQ(value, 0.0F) << dtype_name(dtype);
    }
  }
  values[7] = 3e38F;
  values[8] = -3e38F;
  for (const DType dtype : kBlockTypes) {
    EXPECT_PUZZLE_ERROR((void)encode(dtype, values), ErrorKind::kNumeric, "too large");
  }
  for (const float bad : {NAN, -INFINITY}) {
    values[9] = bad;
    for (const DType dtype : kBlockTypes) {
      EXPECT_PUZZLE_ERROR((void)encode(dtype, values), ErrorKind::kNumeric, "not finite");
    }
  }
}

TEST(GgufQuant, AppendsRows) {
  const std::vector<float> values = random_values(128, 6);
  std::vector<std::byte> rows;
  quantize(DType::kQ4_0, std::span(values).first(64), 64, rows);
  quantize(DType::kQ4_0, std::span(values).last(64), 64, rows);
  EXPECT_TRUE(rows == encode(DType::kQ4_0, values));
}

TEST(GgufQuant, RefusesWhatDoesNotFit) {
  const std::vector<float> values(96);
  std::vector<std::byte> bytes;
  EXPECT_PUZZLE_ERROR(quantize(DType::kQ8_0, values, 48, bytes), ErrorKind::kUsage,
                      "a row of 48 elements cannot be written as Q8_0: its length must be a "
                      "multiple of 32");
  EXPECT_PUZZLE_ERROR(quantize(DType::kQ8_0, values, 0, bytes), ErrorKind::kUsage, "a row of 0");
  EXPECT_PUZZLE_ERROR(quantize(DType::kQ8_0, values, 64, bytes), ErrorKind::kInternal,
                      "whole rows");
  EXPECT_PUZZLE_ERROR(quantize(DType::kQ5_K, values, 96, bytes), ErrorKind::kUsage,
                      "cannot be written as Q5_K; choose F32");
  EXPECT_PUZZLE_ERROR(quantize(DType::kQ4_K, values, 96, bytes), ErrorKind::kUsage,
                      "a row of 96 elements cannot be written as Q4_K: its length must be a "
                      "multiple of 256");
  std::vector<float> out(32);
  std::vector<std::byte> in(33);
  EXPECT_PUZZLE_ERROR(dequantize(DType::kQ8_0, in, out), ErrorKind::kFormat,
                      "32 elements of Q8_0 are 34 bytes, found 33");
  EXPECT_PUZZLE_ERROR(dequantize(DType::kQ8_0, in, std::span(out).first(31)), ErrorKind::kFormat,
                      "whole blocks");
  EXPECT_PUZZLE_ERROR(dequantize(DType::kIQ2_XS, in, out), ErrorKind::kFormat,
                      "the type IQ2_XS has no decoder");
  EXPECT_TRUE(can_dequantize(DType::kQ6_K));
  EXPECT_FALSE(can_dequantize(DType::kI32));
  EXPECT_TRUE(can_quantize(DType::kQ4_1));
  EXPECT_TRUE(can_quantize(DType::kQ6_K));
  EXPECT_FALSE(can_quantize(DType::kQ5_K));
}

TEST(GgufQuant, DecodedSumsOfTheRealParentAreTheRecordedOnes) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  const Json record = load_json(test::golden("gguf_parent_sums.json"));
  ASSERT_EQ(record.size(), 5U);
  for (const auto& [name, expected] : record.items()) {
    const StoredTensor& tensor = file.tensor(name);
    EXPECT_EQ(dtype_name(tensor.dtype), expected.at("type").get<std::string>());
    EXPECT_EQ(tensor.shape, expected.at("shape").get<std::vector<std::int64_t>>());
    const std::vector<float> values =
        decode(tensor.dtype, tensor.bytes, num_elements(tensor.shape, name));
    double sum = 0;
    double sum_abs = 0;
    for (const float value : values) {
      sum += value;
      sum_abs += std::abs(value);
    }
    const double magnitude = expected.at("sum_abs").get<double>();
    EXPECT_NEAR(sum, expected.at("sum").get<double>(), 1e-10 * magnitude) << name;
    EXPECT_NEAR(sum_abs, magnitude, 1e-10 * magnitude) << name;
    EXPECT_EQ(values.back(), expected.at("last").get<float>()) << name;
  }
}

TEST(GgufQuant, ReencodingTheRealParentReproducesItsBytes) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  std::size_t blocks = 0;
  std::size_t changed = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    if (!can_quantize(tensor.dtype) || !is_quantized(tensor.dtype)) {
      continue;
    }
    const std::vector<float> values =
        decode(tensor.dtype, tensor.bytes, num_elements(tensor.shape, tensor.name));
    std::vector<std::byte> again;
    quantize(tensor.dtype, values, tensor.shape.back(), again);
    const auto size = static_cast<std::size_t>(dtype_info(tensor.dtype).block_bytes);
    ASSERT_EQ(again.size(), tensor.bytes.size());
    for (std::size_t i = 0; i < again.size(); i += size) {
      ++blocks;
      changed += std::memcmp(again.data() + i, tensor.bytes.data() + i, size) != 0 ? 1 : 0;
    }
  }
  EXPECT_GT(blocks, 4'000'000U);
  EXPECT_EQ(changed, 0U) << "of " << blocks << " blocks";
}

// ----------------------------------------------------------------------- blocks with a search

double squared_error(std::span<const float> a, std::span<const float> b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

const std::vector<DType> kSearchedTypes = {DType::kQ4_K, DType::kQ6_K};

// Rounding in another order can turn a tie, so a few elements in a thousand may be another step.
TEST(GgufKQuant, GivesTheBlocksOfLlamaCpp) {
  const Json record = load_json(test::golden("gguf_kquant.json"));
  const std::vector<float> values =
      test::to_floats(test::from_hex(record.at("values").get<std::string>()));
  for (const DType dtype : kSearchedTypes) {
    SCOPED_TRACE(dtype_name(dtype));
    const Json& expected = record.at("blocks").at(std::string(dtype_name(dtype)));
    const std::string theirs = test::from_hex(expected.at("bytes").get<std::string>());
    const std::vector<float> decoded =
        test::to_floats(test::from_hex(expected.at("values").get<std::string>()));
    EXPECT_EQ(decode(dtype, test::as_byte_span(theirs), values.size()), decoded);
    std::vector<std::byte> ours;
    quantize(dtype, values, 256, ours);
    const std::vector<float> back = decode(dtype, ours, values.size());
    ASSERT_EQ(ours.size(), theirs.size());
    int differing = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      differing += back[i] != decoded[i] ? 1 : 0;
    }
    EXPECT_LE(differing, static_cast<int>(values.size() / 100));
    for (std::size_t row = 0; row < values.size(); row += 256) {
      const std::span<const float> x = std::span(values).subspan(row, 256);
      const double limit = squared_error(x, std::span(decoded).subspan(row, 256));
      EXPECT_LE(squared_error(x, std::span(back).subspan(row, 256)), 1.001 * limit) << row / 256;
    }
  }
}

TEST(GgufKQuant, LosesNoMoreOfTheRealParentThanLlamaCpp) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  const Json record = load_json(test::golden("gguf_kquant.json")).at("parent");
  ASSERT_EQ(record.size(), 2U);
  for (const auto& [name, errors] : record.items()) {
    const StoredTensor& tensor = file.tensor(name);
    const std::vector<float> values =
        decode(tensor.dtype, tensor.bytes, num_elements(tensor.shape, name));
    for (const DType dtype : kSearchedTypes) {
      std::vector<std::byte> bytes;
      quantize(dtype, values, tensor.shape.back(), bytes);
      const double error = squared_error(values, decode(dtype, bytes, values.size()));
      const double theirs = errors.at(std::string(dtype_name(dtype))).get<double>();
      EXPECT_LE(error, 1.001 * theirs) << name << " " << dtype_name(dtype);
      EXPECT_GT(error, 0.999 * theirs) << name << " " << dtype_name(dtype);
    }
  }
}

TEST(GgufKQuant, RefusesWhatDoesNotFitIntoScales) {
  std::vector<float> values(256, 1e-40F);
  values[3] = -2e-40F;
  for (const DType dtype : kSearchedTypes) {
    for (const float value : decode(dtype, encode(dtype, values), 256)) {
      EXPECT_EQ(value, 0.0F) << dtype_name(dtype);
    }
  }
  for (const float large : {1e9F, 1e20F, 3e38F}) {
    values[200] = large;
    values[201] = -large;
    for (const DType dtype : kSearchedTypes) {
      EXPECT_PUZZLE_ERROR((void)encode(dtype, values), ErrorKind::kNumeric, "too large");
    }
  }
  values[200] = 1e6F;
  values[201] = -1e6F;
  for (const DType dtype : kSearchedTypes) {
    EXPECT_NEAR(decode(dtype, encode(dtype, values), 256)[200], 1e6, 5e4) << dtype_name(dtype);
  }
  for (const float bad : {NAN, INFINITY}) {
    values[255] = bad;
    for (const DType dtype : kSearchedTypes) {
      EXPECT_PUZZLE_ERROR((void)encode(dtype, values), ErrorKind::kNumeric, "not finite");
    }
  }
}

}  // namespace
}  // namespace puzzle
