#include "puzzle/formats/gguf_quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "puzzle/base/error.h"

// This file is compiled without contraction of a*b+c to fused operations, so that results do not
// depend on the machine. Blocks are copied to local arrays first: bytes may alias floats, locals do
// not, and then the inner loops vectorise.

namespace puzzle {
namespace {

constexpr std::size_t kBlock = 32;
constexpr std::size_t kSuperBlock = 256;

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

float load_f16(const std::byte* from) { return f16_to_float(load<std::uint16_t>(from)); }

template <std::size_t kCount>
using Bytes = std::array<std::uint8_t, kCount>;

// ---- decoders of one block: `in` holds its bytes, `out` takes its elements ----

// f16 scale | 32 x i8
void decode_q8_0(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const auto q = load<std::array<std::int8_t, kBlock>>(in + 2);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(q[i]);
  }
}

// f16 scale | 16 bytes: element i low, element i + 16 high
void decode_q4_0(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const auto q = load<Bytes<kBlock / 2>>(in + 2);
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    out[i] = scale * static_cast<float>((q[i] & 15) - 8);
    out[i + kBlock / 2] = scale * static_cast<float>((q[i] >> 4) - 8);
  }
}

// f16 scale | f16 minimum | as Q4_0
void decode_q4_1(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const float minimum = load_f16(in + 2);
  const auto q = load<Bytes<kBlock / 2>>(in + 4);
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    out[i] = scale * static_cast<float>(q[i] & 15) + minimum;
    out[i + kBlock / 2] = scale * static_cast<float>(q[i] >> 4) + minimum;
  }
}

// The 5-bit values of Q5_0 and Q5_1: fifth bits as one u32, bit i for element i | as Q4_0
std::array<std::int32_t, kBlock> load_5_bits(const std::byte* in) {
  const auto high = load<std::uint32_t>(in);
  const auto low = load<Bytes<kBlock / 2>>(in + 4);
  std::array<std::int32_t, kBlock> values;
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    values[i] = static_cast<std::int32_t>((low[i] & 15U) | (((high >> i) & 1U) << 4U));
    values[i + kBlock / 2] =
        static_cast<std::int32_t>((low[i] >> 4U) | (((high >> (i + kBlock / 2)) & 1U) << 4U));
  }
  return values;
}

// f16 scale | 5-bit values
void decode_q5_0(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const auto q = load_5_bits(in + 2);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(q[i] - 16);
  }
}

// f16 scale | f16 minimum | 5-bit values
void decode_q5_1(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const float minimum = load_f16(in + 2);
  const auto q = load_5_bits(in + 4);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(q[i]) + minimum;
  }
}

// Scales of the eight groups of 32 in Q4_K and Q5_K: f16 d | f16 dmin | 12 bytes holding eight
// 6-bit scales and eight 6-bit minima; groups 4..7 keep their low 4 bits in bytes 8..11 and borrow
// the upper bits of bytes 0..7 for the rest.
struct GroupScales {
  std::array<float, 8> scale;
  std::array<float, 8> minimum;
};

GroupScales load_group_scales(const std::byte* in) {
  const float d = load_f16(in);
  const float d_min = load_f16(in + 2);
  const auto packed = load<Bytes<12>>(in + 4);
  GroupScales groups;
  for (std::size_t g = 0; g < 4; ++g) {
    const int scale_low = packed[g] & 63;
    const int minimum_low = packed[g + 4] & 63;
    const int scale_high = (packed[g + 8] & 15) | ((packed[g] >> 6) << 4);
    const int minimum_high = (packed[g + 8] >> 4) | ((packed[g + 4] >> 6) << 4);
    groups.scale[g] = d * static_cast<float>(scale_low);
    groups.minimum[g] = d_min * static_cast<float>(minimum_low);
    groups.scale[g + 4] = d * static_cast<float>(scale_high);
    groups.minimum[g + 4] = d_min * static_cast<float>(minimum_high);
  }
  return groups;
}

// group scales (16 bytes) | 128 bytes: each 32 bytes hold one group low and the next one high
void decode_q4_k(const std::byte* in, float* out) {
  const GroupScales groups = load_group_scales(in);
  for (std::size_t pair = 0; pair < 4; ++pair) {
    const auto q = load<Bytes<32>>(in + 16 + 32 * pair);
    const std::size_t g = 2 * pair;
    float* values = out + 64 * pair;
    for (std::size_t i = 0; i < 32; ++i) {
      values[i] = groups.scale[g] * static_cast<float>(q[i] & 15) - groups.minimum[g];
      values[i + 32] = groups.scale[g + 1] * static_cast<float>(q[i] >> 4) - groups.minimum[g + 1];
    }
  }
}

// group scales (16 bytes) | 32 bytes of fifth bits, bit g of byte i for element i of group g | as
// Q4_K
void decode_q5_k(const std::byte* in, float* out) {
  const GroupScales groups = load_group_scales(in);
  const auto high = load<Bytes<32>>(in + 16);
  for (std::size_t pair = 0; pair < 4; ++pair) {
    const auto q = load<Bytes<32>>(in + 48 + 32 * pair);
    const std::size_t g = 2 * pair;
    float* values = out + 64 * pair;
    for (std::size_t i = 0; i < 32; ++i) {
      const int first = (q[i] & 15) | (((high[i] >> g) & 1) << 4);
      const int second = (q[i] >> 4) | (((high[i] >> (g + 1)) & 1) << 4);
      values[i] = groups.scale[g] * static_cast<float>(first) - groups.minimum[g];
      values[i + 32] = groups.scale[g + 1] * static_cast<float>(second) - groups.minimum[g + 1];
    }
  }
}

// 128 bytes of low 4 bits | 64 bytes of high 2 bits | 16 x i8 scales of 16 elements | f16 d
void decode_q6_k(const std::byte* in, float* out) {
  const auto scales = load<std::array<std::int8_t, 16>>(in + 192);
  const float d = load_f16(in + 208);
  for (std::size_t half = 0; half < 2; ++half) {
    const auto low = load<Bytes<64>>(in + 64 * half);
    const auto high = load<Bytes<32>>(in + 128 + 32 * half);
    for (std::size_t part = 0; part < 4; ++part) {
      const std::size_t low_offset = 32 * (part % 2);
      const std::size_t low_shift = 4 * (part / 2);
      float* values = out + 128 * half + 32 * part;
      for (std::size_t side = 0; side < 2; ++side) {
        const float scale = d * static_cast<float>(scales[8 * half + 2 * part + side]);
        for (std::size_t i = 16 * side; i < 16 * side + 16; ++i) {
          const int q =
              ((low[low_offset + i] >> low_shift) & 15) | (((high[i] >> (2 * part)) & 3) << 4);
          values[i] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
}

// 16 bytes: 4-bit scale low, 4-bit minimum high, of 16 elements each | 64 bytes: 2 bits of four
// elements that stand 32 apart | f16 d | f16 dmin
void decode_q2_k(const std::byte* in, float* out) {
  const auto scales = load<Bytes<16>>(in);
  const float d = load_f16(in + 80);
  const float d_min = load_f16(in + 82);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group] & 15);
    const float minimum = d_min * static_cast<float>(scales[group] >> 4);
    const std::size_t half = group / 8;
    const std::size_t shift = 2 * (group % 8 / 2);
    const auto q = load<Bytes<16>>(in + 16 + 32 * half + 16 * (group % 2));
    for (std::size_t i = 0; i < 16; ++i) {
      out[16 * group + i] = scale * static_cast<float>((q[i] >> shift) & 3) - minimum;
    }
  }
}

// The sixteen signed 6-bit scales of Q3_K in 12 bytes: low 4 bits of scale j in the low half of
// byte j and of scale j + 8 in its high half; two high bits of scales j, j + 4, j + 8, j + 12 in
// byte 8 + j.
int q3_k_scale(const Bytes<12>& packed, std::size_t j) {
  const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
  const int high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
  return (low | (high << 4)) - 32;
}

// 32 bytes of third bits (clear = minus 4), bit k of byte i for element 32 k + i | low 2 bits as
// Q2_K | scales (12 bytes) | f16 d
void decode_q3_k(const std::byte* in, float* out) {
  const auto scales = load<Bytes<12>>(in + 96);
  const float d = load_f16(in + 108);
  for (std::size_t group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(q3_k_scale(scales, group));
    const std::size_t half = group / 8;
    const std::size_t shift = 2 * (group % 8 / 2);
    const auto high = load<Bytes<16>>(in + 16 * (group % 2));
    const auto q = load<Bytes<16>>(in + 32 + 32 * half + 16 * (group % 2));
    for (std::size_t i = 0; i < 16; ++i) {
      const int low = (q[i] >> shift) & 3;
      out[16 * group + i] =
          scale * static_cast<float>(((high[i] >> (group / 2)) & 1) != 0 ? low : low - 4);
    }
  }
}

// f16 scale | f16 scale times the sum, for dot products only | 32 x i8
void decode_q8_1(const std::byte* in, float* out) {
  const float scale = load_f16(in);
  const auto q = load<std::array<std::int8_t, kBlock>>(in + 4);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(q[i]);
  }
}

// f32 scale | 256 x i8 | 16 x i16 sums, for dot products only
void decode_q8_k(const std::byte* in, float* out) {
  const auto scale = load<float>(in);
  const auto q = load<std::array<std::int8_t, kSuperBlock>>(in + 4);
  for (std::size_t i = 0; i < kSuperBlock; ++i) {
    out[i] = scale * static_cast<float>(q[i]);
  }
}

void decode_f32(const std::byte* in, float* out) { std::memcpy(out, in, kBlock * sizeof(float)); }

void decode_f16(const std::byte* in, float* out) {
  const auto values = load<std::array<std::uint16_t, kBlock>>(in);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = f16_to_float(values[i]);
  }
}

void decode_bf16(const std::byte* in, float* out) {
  const auto values = load<std::array<std::uint16_t, kBlock>>(in);
  for (std::size_t i = 0; i < kBlock; ++i) {
    out[i] = bf16_to_float(values[i]);
  }
}

template <auto kDecode, std::size_t kElements, std::size_t kBytes>
void decode_blocks(const std::byte* in, float* out, std::size_t count) {
  const std::size_t blocks = count / kElements;
  for (std::size_t block = 0; block < blocks; ++block) {
    kDecode(in + block * kBytes, out + block * kElements);
  }
  const std::size_t rest = count - blocks * kElements;  // plain types only
  if (rest > 0) {
    std::array<std::byte, kBytes> bytes = {};
    std::array<float, kElements> values;
    std::memcpy(bytes.data(), in + blocks * kBytes, rest * (kBytes / kElements));
    kDecode(bytes.data(), values.data());
    std::copy_n(values.data(), rest, out + blocks * kElements);
  }
}

using Decoder = void (*)(const std::byte*, float*, std::size_t);

Decoder find_decoder(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return decode_blocks<decode_f32, kBlock, 4 * kBlock>;
    case DType::kF16:
      return decode_blocks<decode_f16, kBlock, 2 * kBlock>;
    case DType::kBF16:
      return decode_blocks<decode_bf16, kBlock, 2 * kBlock>;
    case DType::kQ8_0:
      return decode_blocks<decode_q8_0, kBlock, 34>;
    case DType::kQ4_0:
      return decode_blocks<decode_q4_0, kBlock, 18>;
    case DType::kQ4_1:
      return decode_blocks<decode_q4_1, kBlock, 20>;
    case DType::kQ5_0:
      return decode_blocks<decode_q5_0, kBlock, 22>;
    case DType::kQ5_1:
      return decode_blocks<decode_q5_1, kBlock, 24>;
    case DType::kQ8_1:
      return decode_blocks<decode_q8_1, kBlock, 36>;
    case DType::kQ2_K:
      return decode_blocks<decode_q2_k, kSuperBlock, 84>;
    case DType::kQ3_K:
      return decode_blocks<decode_q3_k, kSuperBlock, 110>;
    case DType::kQ8_K:
      return decode_blocks<decode_q8_k, kSuperBlock, 292>;
    case DType::kQ4_K:
      return decode_blocks<decode_q4_k, kSuperBlock, 144>;
    case DType::kQ5_K:
      return decode_blocks<decode_q5_k, kSuperBlock, 176>;
    case DType::kQ6_K:
      return decode_blocks<decode_q6_k, kSuperBlock, 210>;
    default:
      return nullptr;
  }
}

}  // namespace

bool can_dequantize(DType dtype) { return find_decoder(dtype) != nullptr; }

void dequantize(DType dtype, std::span<const std::byte> in, std::span<float> out) {
  const Decoder decode = find_decoder(dtype);
  if (decode == nullptr) {
    fail(ErrorKind::kFormat, "the type {} has no decoder; expected one of {}", dtype_name(dtype),
         kDequantizedTypes);
  }
  const std::uint64_t expected = byte_size(dtype, out.size(), "dequantize");
  if (in.size() != expected) {
    fail(ErrorKind::kFormat, "{} elements of {} are {} bytes, found {}", out.size(),
         dtype_name(dtype), expected, in.size());
  }
  decode(in.data(), out.data(), out.size());
}

}  // namespace puzzle
