#include "puzzle/formats/safetensors.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::string with_header(const std::string& header, std::size_t data_bytes) {
  std::string out;
  test::put(out, static_cast<std::uint64_t>(header.size()));
  return out + header + std::string(data_bytes, '\x11');
}

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsFile open(const std::string& bytes) {
    test::write_bytes(path_, bytes);
    return SafetensorsFile(path_);
  }

  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "model.safetensors";
};

using Safetensors = SafetensorsTest;

TensorToWrite reordered_copy(const StoredTensor& tensor) {
  return {.name = tensor.name,
          .dtype = tensor.dtype,
          .shape = tensor.shape,
          .bytes = tensor.bytes,
          .produce = nullptr};
}

TEST_F(Safetensors, ReadsEveryTypeOfTheReferenceWriter) {
  const SafetensorsFile file(test::golden("safetensors_small.safetensors"));
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_EQ(file.tensors().size(), 19U);
  const std::map<std::string, DType> dtypes = {
      {"t.f32", DType::kF32},   {"t.f16", DType::kF16},    {"t.bf16", DType::kBF16},
      {"t.f64", DType::kF64},   {"t.i8", DType::kI8},      {"t.u8", DType::kU8},
      {"t.i16", DType::kI16},   {"t.u16", DType::kU16},    {"t.i32", DType::kI32},
      {"t.u32", DType::kU32},   {"t.i64", DType::kI64},    {"t.u64", DType::kU64},
      {"t.bool", DType::kBool}, {"t.f8a", DType::kF8E5M2}, {"t.f8b", DType::kF8E4M3},
      {"t.c64", DType::kC64}};
  for (const auto& [name, dtype] : dtypes) {
    const StoredTensor& tensor = file.tensor(name);
    EXPECT_EQ(tensor.dtype, dtype) << name;
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3})) << name;
  }
  const std::string bf16 = test::to_text(file.tensor("t.bf16").bytes);
  std::uint16_t last = 0;
  std::memcpy(&last, bf16.data() + 10, 2);
  EXPECT_EQ(bf16_to_float(last), 5.0F);
  EXPECT_EQ(test::to_floats(test::to_text(file.tensor("scalar").bytes)), std::vector<float>{1.5F});
  EXPECT_TRUE(file.tensor("scalar").shape.empty());
  EXPECT_TRUE(file.tensor("empty").bytes.empty());
  EXPECT_EQ(test::to_floats(test::to_text(file.tensor("name \"\\ \u4e2d\n").bytes)),
            (std::vector<float>{2.5F, -3.0F}));
}

TEST_F(Safetensors, WritesTheBytesOfTheReferenceWriter) {
  const SafetensorsFile golden(test::golden("safetensors_small.safetensors"));
  std::vector<TensorToWrite> tensors;
  for (const StoredTensor& tensor : golden.tensors()) {
    tensors.insert(tensors.begin(), reordered_copy(tensor));  // in another order
  }
  write_safetensors(path_, tensors);
  const std::string written = test::read_bytes(path_);
  EXPECT_EQ(written, test::read_bytes(test::golden("safetensors_small.safetensors")));
  write_safetensors(folder_ / "again", tensors);
  EXPECT_EQ(test::read_bytes(folder_ / "again"), written);
}

TEST_F(Safetensors, ProducedTensorsAndMetadataReadBack) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  std::vector<TensorToWrite> tensors;
  tensors.push_back({.name = "a",
                     .dtype = DType::kF32,
                     .shape = {3, 2},
                     .bytes = {},
                     .produce = [&](const ByteSink& sink) {
                       for (const float& value : values) {
                         sink(std::as_bytes(std::span(&value, 1)));
                       }
                     }});
  write_safetensors(path_, tensors, {{"made by", "a \"test\""}});
  StoredTensor tensor;
  {
    const SafetensorsFile file(path_);
    EXPECT_EQ(file.metadata(),
              (std::map<std::string, std::string>{{"format", "pt"}, {"made by", "a \"test\""}}));
    tensor = file.tensor("a");
  }
  EXPECT_EQ(test::to_floats(test::to_text(tensor.bytes)), values);  // outlives the file
  write_safetensors(path_, {});
  EXPECT_TRUE(SafetensorsFile(path_).tensors().empty());
}

TEST_F(Safetensors, MisuseOfTheWriterIsInternal) {
  const float value = 1;
  const TensorToWrite good = {.name = "a",
                              .dtype = DType::kF32,
                              .shape = {},
                              .bytes = std::as_bytes(std::span(&value, 1)),
                              .produce = nullptr};
  const auto expect = [&](const std::vector<TensorToWrite>& tensors,
                          const std::map<std::string, std::string>& metadata, const char* part) {
    EXPECT_PUZZLE_ERROR(write_safetensors(path_, tensors, metadata), ErrorKind::kInternal, part);
    EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  };
  TensorToWrite bad = good;
  expect({good, good}, {}, "or not twice: a");
  bad.name = "__metadata__";
  expect({bad}, {}, "cannot hold this tensor name");
  bad.name = "\xff";
  expect({bad}, {}, "not UTF-8");
  bad = good;
  bad.dtype = DType::kQ8_0;
  expect({bad}, {}, "safetensors has no type Q8_0");
  bad = good;
  bad.shape = {2};
  expect({bad}, {}, "tensor a gives 4 bytes, its shape needs 8");
  bad.produce = [&](const ByteSink& sink) {
    for (int i = 0; i < 3; ++i) {
      sink(std::as_bytes(std::span(&value, 1)));
    }
  };
  expect({bad}, {}, "tensor a gives more than the 8 bytes of its shape");
  expect({good}, {{"format", "np"}}, "which transformers refuses");
}

struct BrokenSafetensors {
  std::string name;
  std::string bytes;
  std::string part;
};

std::vector<BrokenSafetensors> broken_safetensors() {
  const auto one = [](const std::string& entry, std::size_t data_bytes = 8) {
    return with_header("{\"a\":" + entry + "}", data_bytes);
  };
  const auto shaped = [&](const std::string& shape, const std::string& offsets) {
    return one("{\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}");
  };
  const auto pair = [](const std::string& first, const std::string& second, std::size_t bytes) {
    return with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + first +
                           "},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" + second +
                           "}}",
                       bytes);
  };
  std::string absurd;
  test::put(absurd, ~std::uint64_t{0});
  std::string long_header;
  test::put(long_header, std::uint64_t{100});
  return {
      {"empty", "", "0 bytes are too few"},
      {"seven bytes", "1234567", "7 bytes are too few"},
      {"absurd header", absurd + "{}", "the header claims 18446744073709551615 bytes, at most"},
      {"header longer than file", long_header + "{}",
       "claims 100 bytes, the file has 2 left; is the file complete? download it again"},
      {"no header", with_header("", 0), "does not start with {"},
      {"header is a list", with_header("[1]", 0), "does not start with {"},
      {"another format", "GGUF\x03" + std::string(60, '\0'),
       "the header claims 14064895815 bytes, at most 100000000"},
      {"header is not JSON", with_header("{\"a\":}", 0), "not valid JSON"},
      {"header is cut", with_header("{\"a\":{\"dtype\":\"F32\"", 0), "not valid JSON"},
      {"header is not UTF-8", with_header("{\"\xff\":1}", 0), "not valid JSON"},
      {"deep JSON", with_header("{\"a\":" + std::string(100000, '['), 0),
       "nested more than 200 levels"},
      {"text after the header", with_header("{} {}", 0), "not valid JSON"},
      {"number beyond double", with_header("{\"a\":1e999}", 0), "not valid JSON"},
      {"tensor twice",
       with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                   "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                   8),
       "\"a\" stands twice"},
      {"metadata is a list", with_header("{\"__metadata__\":[]}", 0),
       "__metadata__ is not an object"},
      {"metadata holds a number", with_header("{\"__metadata__\":{\"k\":1}}", 0),
       "__metadata__ \"k\" is number, expected a string"},
      {"entry is a number", one("7"), "tensor a: found number, expected an object"},
      {"no dtype", one("{\"shape\":[2],\"data_offsets\":[0,8]}"), "\"dtype\" is missing"},
      {"dtype is a number", one("{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}"),
       "\"dtype\" is 5, expected a string"},
      {"sub-byte dtype", one("{\"dtype\":\"F4\",\"shape\":[16],\"data_offsets\":[0,8]}"),
       "tensor a: the type F4 is not supported"},
      {"ggml dtype", one("{\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]}", 34),
       "the type Q8_0 is not supported"},
      {"no shape", one("{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), "\"shape\" is missing"},
      {"shape is text", shaped("\"2\"", "[0,8]"), "\"shape\" is missing or not a list"},
      {"negative size", shaped("[-2]", "[0,8]"), "shape: found -2, expected a whole number"},
      {"fractional size", shaped("[2.5]", "[0,8]"), "shape: found 2.5"},
      {"size is text", shaped("[\"2\"]", "[0,8]"), "shape: found \"2\""},
      {"size beyond 2^63", shaped("[18446744073709551615]", "[0,8]"),
       "a dimension is 18446744073709551615"},
      {"product overflows", shaped("[4294967296,4294967296]", "[0,8]"), "beyond 2^63"},
      {"bytes overflow", shaped("[4611686018427387904]", "[0,8]"), "more than 2^63 bytes"},
      {"no offsets", one("{\"dtype\":\"F32\",\"shape\":[2]}"), "\"data_offsets\" is missing"},
      {"old name of offsets", one("{\"dtype\":\"F32\",\"shape\":[2],\"offsets\":[0,8]}"),
       "\"data_offsets\" is missing"},
      {"three offsets", shaped("[2]", "[0,4,8]"), "not a pair"},
      {"negative offset", shaped("[2]", "[-8,0]"), "data_offsets: found -8"},
      {"offsets turned round", shaped("[2]", "[8,0]"),
       "data_offsets [8, 0] do not hold the 8 bytes"},
      {"too few bytes for the shape", shaped("[3]", "[0,8]"), "do not hold the 12 bytes"},
      {"begins late", shaped("[1]", "[4,8]"), "tensor a begins at 4, the one before it ends at 0"},
      {"beyond the data",
       with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":"
                   "[0,16]}}",
                   8),
       "tensor a ends at 16, the data at 8; is the file complete? download it again, or delete it "
       "if puzzle wrote it"},
      {"absurd offsets", shaped("[0]", "[18446744073709551615,18446744073709551615]"), "begins at"},
      {"bytes after the last", shaped("[1]", "[0,4]"), "the tensors end at 4, the data at 8"},
      {"data without tensors", with_header("{}", 1), "the tensors end at 0, the data at 1"},
      {"gap", pair("[0,4]", "[8,12]", 12), "tensor b begins at 8, the one before it ends at 4"},
      {"overlap", pair("[0,4]", "[2,6]", 8), "tensor b begins at 2, the one before it ends at 4"},
      {"same bytes twice", pair("[0,4]", "[0,4]", 4), "begins at 0, the one before it ends at 4"},
  };
}

TEST_F(Safetensors, EveryBrokenFileIsOneClearError) {
  for (const BrokenSafetensors& broken : broken_safetensors()) {
    SCOPED_TRACE(broken.name);
    EXPECT_PUZZLE_ERROR((void)open(broken.bytes), ErrorKind::kFormat, broken.part);
    EXPECT_PUZZLE_ERROR((void)open(broken.bytes), ErrorKind::kFormat, path_.string());
  }
  EXPECT_PUZZLE_ERROR(SafetensorsFile(folder_ / "absent"), ErrorKind::kIo, "absent");
}

TEST_F(Safetensors, TruncatedAnywhereIsAnError) {
  const std::string whole = test::read_bytes(test::golden("safetensors_small.safetensors"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_PUZZLE_ERROR((void)open(whole.substr(0, size)), ErrorKind::kFormat, path_.string());
  }
}

TEST_F(Safetensors, RandomDamageEitherParsesOrIsAPuzzleError) {
  const std::string whole = test::read_bytes(test::golden("safetensors_small.safetensors"));
  std::mt19937_64 generator(12);
  int parsed = 0;
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = whole;
    for (std::uint64_t flips = 1 + generator() % 2; flips > 0; --flips) {
      bytes[generator() % bytes.size()] = static_cast<char>(generator());
    }
    if (generator() % 8 == 0) {
      bytes.resize(generator() % bytes.size());
    }
    try {
      const SafetensorsFile file = open(bytes);
      std::byte all{};
      for (const StoredTensor& tensor : file.tensors()) {
        for (const std::byte byte : tensor.bytes) {
          all |= byte;
        }
      }
      ++parsed;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(parsed, 500);
  EXPECT_GT(refused, 500);
}

class SafetensorsModelTest : public ::testing::Test {
 protected:
  // A file with one tensor `name` holding `value`.
  void write_shard(const std::string& file, const std::string& name, float value) {
    const auto path = folder_ / file;
    make_folder(path.parent_path());
    write_safetensors(path, {{.name = name,
                              .dtype = DType::kF32,
                              .shape = {1},
                              .bytes = std::as_bytes(std::span(&value, 1)),
                              .produce = nullptr}});
  }
  void write_index(const std::string& text) {
    test::write_bytes(folder_ / "model.safetensors.index.json", text);
  }
  static float value_of(const StoredTensor& tensor) {
    return test::to_floats(test::to_text(tensor.bytes)).at(0);
  }

  test::TempDir folder_;
};

using SafetensorsModels = SafetensorsModelTest;

TEST_F(SafetensorsModels, OpensAFolderWithOneFileOrTheFileItself) {
  write_shard("model.safetensors", "w", 3);
  for (const auto& path : {folder_.path(), folder_ / "model.safetensors"}) {
    const SafetensorsModel model(path);
    EXPECT_EQ(model.files(), std::vector{folder_ / "model.safetensors"});
    EXPECT_EQ(value_of(model.tensor("w")), 3);
    EXPECT_EQ(model.find_tensor("v"), nullptr);
    EXPECT_PUZZLE_ERROR((void)model.tensor("ww"), ErrorKind::kFormat,
                        "there is no tensor ww; the nearest name is w");
  }
}

TEST_F(SafetensorsModels, OpensShardsAlsoInSubFolders) {
  write_shard("model-00001-of-00002.safetensors", "a", 1);
  write_shard("sub/blocks/b.safetensors", "b", 2);
  write_index(R"({"metadata":{"total_size":8},"weight_map":{"b":"sub/blocks/b.safetensors",
                  "a":"model-00001-of-00002.safetensors"}})");
  const SafetensorsModel model(folder_.path());
  EXPECT_EQ(model.tensors().size(), 2U);
  EXPECT_EQ(value_of(model.tensor("a")), 1);
  EXPECT_EQ(value_of(model.tensor("b")), 2);
  EXPECT_EQ(model.files(), (std::vector{folder_ / "model-00001-of-00002.safetensors",
                                        folder_ / "sub/blocks/b.safetensors"}));
  EXPECT_EQ(SafetensorsModel(folder_ / "model.safetensors.index.json").tensors().size(), 2U);
}

TEST_F(SafetensorsModels, BrokenIndexesAreRefused) {
  write_shard("a.safetensors", "a", 1);
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"", "not valid JSON"},
      {"[]", "\"weight_map\" is missing"},
      {"{}", "\"weight_map\" is missing"},
      {R"({"weight_map":[]})", "\"weight_map\" is missing or not an object"},
      {R"({"weight_map":{"a":1}})", "the shard of a is number"},
      {R"({"weight_map":{"a":""}})", "not below the model's folder"},
      {R"({"weight_map":{"a":"../a.safetensors"}})", "\"../a.safetensors\" is not below"},
      {R"({"weight_map":{"a":"x/../../a.safetensors"}})", "not below the model's folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "not below the model's folder"},
      {R"({"weight_map":{"a":"a.safetensors\u0000"}})", "the shard \"a.safetensors"},
      {R"({"weight_map":{"b":"a.safetensors"}})", "a.safetensors does not hold tensor b"},
      {R"({"weight_map":{"a":"a.safetensors","a":"a.safetensors"}})", "\"a\" stands twice"},
  };
  for (const auto& [text, part] : broken) {
    SCOPED_TRACE(text);
    write_index(text);
    EXPECT_PUZZLE_ERROR(SafetensorsModel(folder_.path()), ErrorKind::kFormat, part);
  }
  write_index(R"({"weight_map":{"a":"absent.safetensors"}})");
  EXPECT_PUZZLE_ERROR(SafetensorsModel(folder_.path()), ErrorKind::kIo, "absent.safetensors");
}

TEST_F(SafetensorsModels, AFolderWithoutWeightsSaysWhatIsRead) {
  EXPECT_PUZZLE_ERROR(SafetensorsModel(folder_.path()), ErrorKind::kIo,
                      "holds neither model.safetensors nor model.safetensors.index.json");
}

}  // namespace
}  // namespace puzzle
