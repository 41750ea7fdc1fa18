#include "puzzle/formats/gguf.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "puzzle/formats/gguf_quant.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::put;

constexpr std::uint32_t kTypeF32 = 0;
constexpr std::uint32_t kTypeQ8_0 = 8;

void put_text(std::string& out, const std::string& text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

std::string start(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
  std::string out = "GGUF";
  put(out, version);
  put(out, tensors);
  put(out, keys);
  return out;
}

std::string u32_key(const std::string& key, std::uint32_t value) {
  std::string out;
  put_text(out, key);
  put(out, std::uint32_t{4});
  put(out, value);
  return out;
}

std::string array_key(const std::string& key, std::uint32_t element_type, std::uint64_t count,
                      const std::string& elements) {
  std::string out;
  put_text(out, key);
  put(out, std::uint32_t{9});
  put(out, element_type);
  put(out, count);
  return out + elements;
}

std::string tensor_entry(const std::string& name, const std::vector<std::uint64_t>& ne,
                         std::uint32_t type, std::uint64_t offset) {
  std::string out;
  put_text(out, name);
  put(out, static_cast<std::uint32_t>(ne.size()));
  for (const std::uint64_t size : ne) {
    put(out, size);
  }
  put(out, type);
  put(out, offset);
  return out;
}

// `header` padded to `alignment`, then that many data bytes.
std::string with_data(std::string header, std::size_t bytes, std::size_t alignment = 32) {
  header.append((alignment - header.size() % alignment) % alignment, '\0');
  return header + std::string(bytes, '\x11');
}

class GgufTest : public ::testing::Test {
 protected:
  GgufFile open(const std::string& bytes) {
    test::write_bytes(path_, bytes);
    return GgufFile(path_);
  }

  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "model.gguf";
};

using Gguf = GgufTest;

TEST_F(Gguf, ReadsEveryValueTypeOfTheGgufPackage) {
  const GgufFile file(test::golden("gguf_small.gguf"));
  EXPECT_EQ(file.string_value("general.architecture"), "deci");
  EXPECT_EQ(file.int_value("t.u8"), 200);
  EXPECT_EQ(file.int_value("t.i8"), -100);
  EXPECT_EQ(file.int_value("t.u16"), 60000);
  EXPECT_EQ(file.int_value("t.i16"), -30000);
  EXPECT_EQ(file.int_value("t.u32"), 4000000000);
  EXPECT_EQ(file.int_value("t.i32"), -2000000000);
  EXPECT_EQ(file.int_value("t.u64"), (1LL << 40) + 1);
  EXPECT_EQ(file.int_value("t.i64"), -(1LL << 40));
  EXPECT_EQ(file.real_value("t.f32"), static_cast<double>(0.1F));
  EXPECT_EQ(file.real_value("t.f64"), 0.1);
  EXPECT_EQ(file.real_value("t.u8"), 200.0);
  EXPECT_TRUE(file.bool_value("t.bool", false));
  EXPECT_EQ(file.string_value("t.string"), "gr\u00fc\u00df dich");
  EXPECT_EQ(file.int_list("t.ints"), (std::vector<std::int64_t>{3, -1, 2}));
  EXPECT_EQ(file.float_list("t.floats"), (std::vector<float>{0.5F, -2.0F}));
  EXPECT_EQ(file.string_list("t.strings"), (std::vector<std::string>{"a", "", "\u4e2d"}));
  EXPECT_EQ(gguf_type_name(*file.find_value("t.bools")), "bool[2]");
  EXPECT_EQ(gguf_type_name(*file.find_value("t.string")), "string");
  EXPECT_EQ(file.metadata().size(), 17U);
}

TEST_F(Gguf, ReadsTensorsWithTheOutermostDimensionFirst) {
  const GgufFile file(test::golden("gguf_small.gguf"));
  ASSERT_EQ(file.tensors().size(), 4U);
  EXPECT_EQ(file.tensors()[0].name, "f32");
  const StoredTensor& tensor = file.tensor("q8");
  EXPECT_EQ(tensor.dtype, DType::kQ8_0);
  EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{3, 32}));
  EXPECT_EQ(tensor.bytes.size(), 3U * 34U);
  EXPECT_EQ(file.find_tensor("q9"), nullptr);
  EXPECT_PUZZLE_ERROR((void)file.tensor("q9"), ErrorKind::kFormat,
                      "gguf_small.gguf: there is no tensor q9; the nearest name is q4");
}

TEST_F(Gguf, TensorsOutliveTheFile) {
  StoredTensor tensor;
  {
    const GgufFile file(test::golden("gguf_small.gguf"));
    tensor = file.tensor("f32");
  }
  std::vector<float> values(15);
  dequantize(tensor.dtype, tensor.bytes, values);
  EXPECT_NE(values[0], 0.0F);
}

TEST_F(Gguf, ValuesOfAnotherTypeAreNamed) {
  const GgufFile file(test::golden("gguf_small.gguf"));
  EXPECT_PUZZLE_ERROR((void)file.int_value("t.f32"), ErrorKind::kFormat,
                      "the key t.f32 is of type f32, expected a whole number");
  EXPECT_PUZZLE_ERROR((void)file.int_value("t.bool"), ErrorKind::kFormat, "of type bool");
  EXPECT_PUZZLE_ERROR((void)file.int_value("t.ints"), ErrorKind::kFormat, "of type i32[3]");
  EXPECT_PUZZLE_ERROR((void)file.real_value("t.string"), ErrorKind::kFormat,
                      "of type string, expected a number");
  EXPECT_PUZZLE_ERROR((void)file.bool_value("t.u8", true), ErrorKind::kFormat, "expected a bool");
  EXPECT_PUZZLE_ERROR((void)file.string_value("t.u8"), ErrorKind::kFormat, "expected a string");
  EXPECT_PUZZLE_ERROR((void)file.int_list("t.floats"), ErrorKind::kFormat,
                      "of type f32[2], expected a list of whole numbers");
  EXPECT_PUZZLE_ERROR((void)file.string_list("t.ints"), ErrorKind::kFormat, "list of strings");
  EXPECT_PUZZLE_ERROR((void)file.float_list("t.strings"), ErrorKind::kFormat, "list of f32");
  EXPECT_PUZZLE_ERROR((void)file.int_value("t.i33"), ErrorKind::kFormat,
                      "gguf_small.gguf: the key t.i33 is missing; the nearest one is t.i32");
}

TEST_F(Gguf, FallbacksStandInForAbsentKeysOnly) {
  const GgufFile file(test::golden("gguf_small.gguf"));
  EXPECT_EQ(file.int_value("absent", 7), 7);
  EXPECT_EQ(file.real_value("absent", 0.5), 0.5);
  EXPECT_TRUE(file.bool_value("absent", true));
  EXPECT_EQ(file.string_value("absent", "x"), "x");
  EXPECT_EQ(file.int_value("t.u8", 7), 200);
  EXPECT_EQ(file.real_value("t.f64", 7), 0.1);
  EXPECT_EQ(file.string_value("general.architecture", "x"), "deci");
  EXPECT_PUZZLE_ERROR((void)file.int_value("t.string", 7), ErrorKind::kFormat, "whole number");
}

TEST_F(Gguf, OneNumberStandsForAllLayers) {
  const GgufFile file(test::golden("gguf_small.gguf"));
  EXPECT_EQ(file.int_list("t.u8", 3), (std::vector<std::int64_t>{200, 200, 200}));
  EXPECT_EQ(file.int_list("t.ints", 3), (std::vector<std::int64_t>{3, -1, 2}));
  EXPECT_PUZZLE_ERROR((void)file.int_list("t.ints", 4), ErrorKind::kFormat,
                      "the key t.ints has 3 values, expected 4 or a single number");
}

TEST_F(Gguf, NumbersBeyondTheSignedRangeAreRefused) {
  std::string bytes = start(0, 1);
  put_text(bytes, "big");
  put(bytes, std::uint32_t{10});
  put(bytes, ~std::uint64_t{0});
  const GgufFile file = open(bytes);
  EXPECT_PUZZLE_ERROR((void)file.int_value("big"), ErrorKind::kFormat, "beyond 2^63");
}

TEST_F(Gguf, ReadsVersion2) {
  const GgufFile file = open(start(0, 1, 2) + u32_key("a", 5));
  EXPECT_EQ(file.int_value("a"), 5);
}

TEST_F(Gguf, HonoursAnotherAlignmentAndGaps) {
  const std::string header = start(2, 1) + u32_key("general.alignment", 64) +
                             tensor_entry("a", {1}, kTypeF32, 0) +
                             tensor_entry("b", {2}, kTypeF32, 128);
  const GgufFile file = open(with_data(header, 136, 64));
  EXPECT_EQ(file.tensor("b").bytes.data() - file.tensor("a").bytes.data(), 128);
}

TEST_F(Gguf, ScalarsAndEmptyTensorsAreLegal) {
  const GgufFile file = open(with_data(start(2, 0) + tensor_entry("scalar", {}, kTypeF32, 0) +
                                           tensor_entry("empty", {32, 0}, kTypeQ8_0, 32),
                                       32));
  EXPECT_EQ(file.tensor("scalar").bytes.size(), 4U);
  EXPECT_TRUE(file.tensor("empty").bytes.empty());
  EXPECT_EQ(file.tensor("empty").shape, (std::vector<std::int64_t>{0, 32}));
}

struct BrokenGguf {
  std::string name;
  std::string bytes;
  std::string part;
};

std::vector<BrokenGguf> broken_ggufs() {
  std::string key_without_value;
  put_text(key_without_value, "k");
  std::string bad_type = key_without_value;
  put(bad_type, std::uint32_t{13});
  put(bad_type, std::uint64_t{0});
  std::string bad_bool = key_without_value;
  put(bad_bool, std::uint32_t{7});
  bad_bool += '\x02';
  std::string long_string = key_without_value;
  put(long_string, std::uint32_t{8});
  put(long_string, ~std::uint64_t{0});
  std::string long_key;
  put(long_key, std::uint64_t{1} << 40);
  long_key += "kkkkkkkkkkkkk";
  std::string text_alignment;
  put_text(text_alignment, "general.alignment");
  put(text_alignment, std::uint32_t{8});
  put_text(text_alignment, "32");
  const std::string ok = tensor_entry("a", {8}, kTypeF32, 0);
  const auto one = [](const std::string& entry, std::size_t bytes) {
    return with_data(start(1, 0) + entry, bytes);
  };
  return {
      {"empty", "", "needs 4 bytes, the file has 0 left"},
      {"other format", "PK\x03\x04 and more than enough", "does not begin with \"GGUF\""},
      {"only magic", "GGUF", "needs 4 bytes"},
      {"version 1", start(0, 0, 1), "is GGUF version 1, expected 2 or 3"},
      {"version 0", start(0, 0, 0), "is GGUF version 0"},
      {"version 4", start(0, 0, 4), "is GGUF version 4"},
      {"big-endian", start(0, 0, 0x03000000U), "is a big-endian GGUF file"},
      {"absurd tensors", start(1ULL << 60, 0), "the number of tensors claims 1152921504606846976"},
      {"absurd keys", start(0, ~0ULL), "the number of keys claims 18446744073709551615"},
      {"more keys than there are", start(0, 2) + u32_key("a", 1) + std::string(9, '\0'),
       "a key before byte"},
      {"key longer than file", start(0, 1) + long_key, "a key claims 1099511627776 items"},
      {"empty key", start(0, 1) + u32_key("", 1), "a key before byte"},
      {"key with NUL", start(0, 1) + u32_key(std::string("a\0b", 3), 1), "is empty or not UTF-8"},
      {"junk key", start(0, 1) + u32_key("\xff\xfe", 1), "is empty or not UTF-8"},
      {"surrogate key", start(0, 1) + u32_key("\xed\xa0\x80", 1), "is empty or not UTF-8"},
      {"overlong key", start(0, 1) + u32_key("\xc0\xaf", 1), "is empty or not UTF-8"},
      {"cut UTF-8 key", start(0, 1) + u32_key("\xe4\xb8", 1), "is empty or not UTF-8"},
      {"key twice", start(0, 2) + u32_key("a", 1) + u32_key("a", 1), "the key a stands twice"},
      {"no value", start(0, 1) + key_without_value + std::string(4, '\x04'),
       "has the value type 67372036"},
      {"unknown value type", start(0, 1) + bad_type, "key k has the value type 13"},
      {"bool 2", start(0, 1) + bad_bool, "key k holds the bool 2"},
      {"string longer than file", start(0, 1) + long_string, "key k claims 18446744073709551615"},
      {"array longer than file", start(0, 1) + array_key("k", 4, 1ULL << 62, "1234"),
       "key k claims 4611686018427387904 items"},
      {"array of too many strings", start(0, 1) + array_key("k", 8, 3, std::string(16, '\0')),
       "key k claims 3 items"},
      {"array of unknown type", start(0, 1) + array_key("k", 77, 1, "1234"), "value type 77"},
      {"array of arrays", start(0, 1) + array_key("k", 9, 1, std::string(16, '\0')),
       "key k is an array of arrays"},
      {"alignment 0", start(0, 1) + u32_key("general.alignment", 0), "general.alignment is 0"},
      {"alignment 24", start(0, 1) + u32_key("general.alignment", 24), "general.alignment is 24"},
      {"alignment as text", start(0, 1) + text_alignment, "general.alignment is of type string"},
      {"split file", start(0, 2) + u32_key("split.count", 3) + u32_key("split.no", 0),
       "one of 3 parts of a split file, which are found by their names; expected one that ends "
       "with "
       "-00001-of-00003.gguf"},
      {"split file without number", start(0, 1) + u32_key("split.count", 3), "split.no"},
      {"part beyond the count", start(0, 2) + u32_key("split.count", 3) + u32_key("split.no", 3),
       "says that it is part 3 of 3"},
      {"too many parts", start(0, 2) + u32_key("split.count", 65536) + u32_key("split.no", 0),
       "says that it is part 0 of 65536"},
      {"tensor name empty", one(tensor_entry("", {8}, kTypeF32, 0), 32), "a tensor name"},
      {"tensor name junk", one(tensor_entry("\x80", {8}, kTypeF32, 0), 32), "not UTF-8"},
      {"tensor name of 64 bytes", one(tensor_entry(std::string(64, 'n'), {8}, kTypeF32, 0), 32),
       "the name has 64 bytes, at most 63"},
      {"tensor twice", with_data(start(2, 0) + ok + tensor_entry("a", {8}, kTypeF32, 32), 64),
       "the tensor a stands twice"},
      {"5 dimensions", one(tensor_entry("a", {1, 1, 1, 1, 1}, kTypeF32, 0), 32),
       "has 5 dimensions, at most 4"},
      {"absurd rank",
       with_data(
           start(1, 0) +
               [] {
                 std::string entry;
                 put_text(entry, "a");
                 put(entry, 0xffffffffU);
                 return entry;
               }(),
           32),
       "has 4294967295 dimensions"},
      {"negative size", one(tensor_entry("a", {~0ULL}, kTypeF32, 0), 32), "a dimension is -1"},
      {"product overflows", one(tensor_entry("a", {1ULL << 32, 1ULL << 32}, kTypeF32, 0), 32),
       "the product of the dimensions is beyond 2^63"},
      {"product overflows to 0",
       one(tensor_entry("a", {1ULL << 32, 1ULL << 31, 2}, kTypeF32, 0), 32), "beyond 2^63"},
      {"bytes overflow", one(tensor_entry("a", {1ULL << 62}, kTypeF32, 0), 32), "2^63 bytes"},
      {"ggml type 4", one(tensor_entry("a", {32}, 4, 0), 32), "has the ggml type 4"},
      {"ggml type absurd", one(tensor_entry("a", {32}, 0xdeadbeefU, 0), 32), "3735928559"},
      {"row not whole blocks", one(tensor_entry("a", {16, 2}, kTypeQ8_0, 0), 64),
       "rows of 16 elements are not whole blocks of Q8_0"},
      {"misaligned offset", one(tensor_entry("a", {4}, kTypeF32, 16), 64),
       "tensor a begins at 16, which is not a multiple of 32"},
      {"offset beyond data", one(tensor_entry("a", {4}, kTypeF32, 64), 32),
       "tensor a takes 16 bytes from 64, the data section has 32"},
      {"offset absurd", one(tensor_entry("a", {4}, kTypeF32, ~31ULL), 32),
       "the data section has 32"},
      {"larger than data", one(tensor_entry("a", {9}, kTypeF32, 0), 32),
       "tensor a takes 36 bytes from 0, the data section has 32"},
      {"no data section", start(1, 0) + ok, "the data section has 0"},
      {"overlap",
       with_data(
           start(2, 0) + tensor_entry("b", {9}, kTypeF32, 0) + tensor_entry("a", {8}, kTypeF32, 32),
           64),
       "tensors b and a overlap"},
      {"same bytes twice", with_data(start(2, 0) + ok + tensor_entry("b", {1}, kTypeF32, 0), 32),
       "overlap"},
  };
}

TEST_F(Gguf, EveryBrokenFileIsOneClearError) {
  for (const BrokenGguf& broken : broken_ggufs()) {
    SCOPED_TRACE(broken.name);
    EXPECT_PUZZLE_ERROR((void)open(broken.bytes), ErrorKind::kFormat, broken.part);
    EXPECT_PUZZLE_ERROR((void)open(broken.bytes), ErrorKind::kFormat, path_.string());
  }
  EXPECT_PUZZLE_ERROR(GgufFile(folder_ / "absent.gguf"), ErrorKind::kIo, "absent.gguf");
  EXPECT_PUZZLE_ERROR(GgufFile(folder_.path()), ErrorKind::kIo, "is a folder");
}

TEST_F(Gguf, TruncatedAnywhereIsAnError) {
  const std::string whole = test::read_bytes(test::golden("gguf_small.gguf"));
  const GgufFile file(test::golden("gguf_small.gguf"));
  const StoredTensor& last = file.tensors().back();
  const auto needed =
      static_cast<std::size_t>(last.bytes.data() + last.bytes.size() - last.file->bytes().data());
  ASSERT_GT(whole.size(), needed);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    if (size < needed) {
      EXPECT_PUZZLE_ERROR((void)open(whole.substr(0, size)), ErrorKind::kFormat, "model.gguf");
    } else {
      EXPECT_EQ(open(whole.substr(0, size)).tensors().size(), 4U);  // only the last padding
    }
  }
}

// Reads everything a file offers, so that a sanitizer sees every byte that may be reached.
void read_everything(const GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    (void)gguf_type_name(value);
  }
  for (const StoredTensor& tensor : file.tensors()) {
    std::byte all{};
    for (const std::byte byte : tensor.bytes) {
      all |= byte;
    }
    const std::uint64_t count = num_elements(tensor.shape, tensor.name);
    if (can_dequantize(tensor.dtype)) {
      std::vector<float> values(count);
      dequantize(tensor.dtype, tensor.bytes, values);
    }
  }
}

TEST_F(Gguf, RandomDamageEitherParsesOrIsAPuzzleError) {
  const std::string whole = test::read_bytes(test::golden("gguf_small.gguf"));
  std::mt19937_64 generator(11);
  int parsed = 0;
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = whole;
    for (std::uint64_t flips = 1 + generator() % 3; flips > 0; --flips) {
      bytes[generator() % bytes.size()] = static_cast<char>(generator());
    }
    if (generator() % 8 == 0) {
      bytes.resize(generator() % bytes.size());
    }
    try {
      read_everything(open(bytes));
      ++parsed;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(parsed, 500);
  EXPECT_GT(refused, 500);
}

TEST_F(Gguf, OpensTheRealParent) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  EXPECT_EQ(file.string_value("general.architecture"), "llama");
  EXPECT_EQ(file.int_value("llama.block_count"), 30);
  EXPECT_EQ(file.int_list("llama.attention.head_count_kv", 30).back(), 3);
  EXPECT_EQ(file.string_list("tokenizer.ggml.tokens").size(), 49152U);
  EXPECT_EQ(file.tensors().size(), 272U);
  EXPECT_EQ(file.tensor("blk.0.ffn_down.weight").shape, (std::vector<std::int64_t>{576, 1536}));
}

}  // namespace
}  // namespace puzzle
