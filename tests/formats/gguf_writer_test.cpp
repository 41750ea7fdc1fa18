#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "formats/file_bytes.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_quant.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

// Keys of the golden file in its order, as the gguf package was given them.
void add_golden_keys(GgufWriter& writer) {
  writer.add_string("general.architecture", "deci")
      .add_value("t.u8", std::uint8_t{200})
      .add_value("t.i8", std::int8_t{-100})
      .add_value("t.u16", std::uint16_t{60000})
      .add_value("t.i16", std::int16_t{-30000})
      .add_u32("t.u32", 4000000000U)
      .add_value("t.i32", std::int32_t{-2000000000})
      .add_f32("t.f32", 0.1F)
      .add_value("t.bool", true)
      .add_string("t.string", "gr\u00fc\u00df dich")
      .add_value("t.u64", (std::uint64_t{1} << 40) + 1)
      .add_value("t.i64", -(std::int64_t{1} << 40))
      .add_value("t.f64", 0.1)
      .add_value("t.ints", std::vector<std::int32_t>{3, -1, 2})
      .add_value("t.floats", std::vector<float>{0.5F, -2.0F})
      .add_value("t.strings", std::vector<std::string>{"a", "", "\u4e2d"})
      .add_value("t.bools", std::vector<bool>{true, false});
}

TensorToWrite copy_of(const StoredTensor& tensor) {
  return {.name = tensor.name,
          .dtype = tensor.dtype,
          .shape = tensor.shape,
          .bytes = tensor.bytes,
          .produce = nullptr};
}

TEST(GgufWriter, WritesTheBytesOfTheGgufPackage) {
  const test::TempDir folder;
  const GgufFile golden(test::golden("gguf_small.gguf"));
  GgufWriter writer;
  add_golden_keys(writer);
  for (const StoredTensor& tensor : golden.tensors()) {
    writer.add_tensor(copy_of(tensor));
  }
  writer.write(folder / "a.gguf");
  const std::string written = test::read_bytes(folder / "a.gguf");
  EXPECT_EQ(written, test::read_bytes(test::golden("gguf_small.gguf")));
  writer.write(folder / "b.gguf");
  EXPECT_EQ(test::read_bytes(folder / "b.gguf"), written);
}

// Three parts with a tensor each, the keys in the first; what a test wants wrong is changed before.
struct SplitGguf {
  struct Part {
    std::int64_t number;
    std::int64_t count = 3;
    std::string tensor;
  };
  std::vector<Part> parts = {{0, 3, "a"}, {1, 3, "b"}, {2, 3, "c"}};
  std::int32_t num_tensors = 3;

  [[nodiscard]] std::filesystem::path path(std::size_t part) const {
    return folder / ("m-0000" + std::to_string(part + 1) + "-of-00003.gguf");
  }
  void write() const {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      GgufWriter writer;
      if (i == 0) {
        writer.add_string("general.architecture", "llama");
      }
      writer.add_value("split.no", static_cast<std::uint16_t>(parts[i].number));
      writer.add_value("split.count", static_cast<std::uint16_t>(parts[i].count));
      writer.add_value("split.tensors.count", num_tensors);
      const std::vector<float> values(8, static_cast<float>(i));
      TensorToWrite tensor;
      tensor.name = parts[i].tensor;
      tensor.shape = {8};
      tensor.bytes = std::as_bytes(std::span(values));
      writer.add_tensor(std::move(tensor));
      writer.write(path(i));
    }
  }
  test::TempDir folder;
};

TEST(SplitGguf, IsOpenedByItsFirstPart) {
  const SplitGguf split;
  split.write();
  const GgufFile file(split.path(0));
  EXPECT_EQ(file.files(),
            (std::vector<std::filesystem::path>{split.path(0), split.path(1), split.path(2)}));
  EXPECT_EQ(file.string_value("general.architecture"), "llama");
  ASSERT_EQ(file.tensors().size(), 3U);
  const char* names[] = {"a", "b", "c"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(file.tensors()[i].name, names[i]);
    std::vector<float> values(8);
    dequantize(DType::kF32, file.tensor(names[i]).bytes, values);
    EXPECT_EQ(values, std::vector<float>(8, static_cast<float>(i)));
  }
  EXPECT_EQ(GgufFile(test::golden("gguf_small.gguf")).files().size(), 1U);
}

TEST(SplitGguf, PartsThatDoNotBelongTogetherAreRefused) {
  const auto expect = [](const SplitGguf& split, std::size_t opened, ErrorKind kind,
                         const std::string& part) {
    EXPECT_PUZZLE_ERROR(static_cast<void>(GgufFile(split.path(opened))), kind, part);
  };
  SplitGguf split;
  split.write();
  expect(split, 1, ErrorKind::kFormat, "is part 2 of 3 of a split file; open its first part");
  std::filesystem::remove(split.path(2));
  expect(split, 0, ErrorKind::kIo, "m-00003-of-00003.gguf");
  split.parts[2].number = 1;
  split.write();
  expect(split, 0, ErrorKind::kFormat, "says that it is part 1 of 3, expected 2 of 3");
  split.parts[2] = {2, 4, "c"};
  split.write();
  expect(split, 0, ErrorKind::kFormat, "says that it is part 2 of 4, expected 2 of 3");
  split.parts[2] = {2, 3, "a"};
  split.write();
  expect(split, 0, ErrorKind::kFormat, "the tensor a stands in an earlier part, too");
  split.parts[2].tensor = "c";
  split.num_tensors = 4;
  split.write();
  expect(split, 0, ErrorKind::kFormat, "split.tensors.count is 4, but the 3 parts hold 3 tensors");
}

TEST(GgufWriter, TensorsProducedInPiecesReadBack) {
  const test::TempDir folder;
  std::vector<float> values(5 * 64);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i % 37) - 18.0F;
  }
  GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_1}) {
    writer.add_tensor({.name = std::string(dtype_name(dtype)),
                       .dtype = dtype,
                       .shape = {5, 64},
                       .bytes = {},
                       .produce = [&values, dtype](const ByteSink& sink) {
                         for (std::size_t row = 0; row < 5; ++row) {
                           std::vector<std::byte> bytes;
                           quantize(dtype, std::span(values).subspan(64 * row, 64), 64, bytes);
                           sink(bytes);
                         }
                       }});
  }
  writer.write(folder / "a.gguf");
  const GgufFile file(folder / "a.gguf");
  ASSERT_EQ(file.tensors().size(), 5U);
  for (const StoredTensor& tensor : file.tensors()) {
    EXPECT_EQ(tensor.name, dtype_name(tensor.dtype));
    EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{5, 64}));
    std::vector<std::byte> expected;
    quantize(tensor.dtype, values, 64, expected);
    EXPECT_EQ(test::to_text(tensor.bytes), test::to_text(expected)) << tensor.name;
    EXPECT_EQ((tensor.bytes.data() - tensor.file->bytes().data()) % 32, 0);
  }
}

TEST(GgufWriter, MisuseIsInternal) {
  const test::TempDir folder;
  GgufWriter writer;
  writer.add_u32("a", 1);
  const auto tensor = [](std::string name, DType dtype, std::vector<std::int64_t> shape) {
    return TensorToWrite{.name = std::move(name),
                         .dtype = dtype,
                         .shape = std::move(shape),
                         .bytes = {},
                         .produce = nullptr};
  };
  const auto expect = [](const auto& action, const char* part) {
    EXPECT_PUZZLE_ERROR(action(), ErrorKind::kInternal, part);
  };
  expect([&] { writer.add_u32("a", 2); }, "the GGUF key \"a\" is added twice");
  expect([&] { writer.add_u32("general.alignment", 64); }, "always 32");
  expect([&] { writer.add_tensor(tensor(std::string(64, 'n'), DType::kF32, {1})); }, "63 bytes");
  expect([&] { writer.add_tensor(tensor("b", DType::kBool, {1})); }, "GGUF has no type BOOL");
  expect([&] { writer.add_tensor(tensor("b", DType::kF32, {})); }, "0 dimensions");
  expect([&] { writer.add_tensor(tensor("b", DType::kF32, {1, 1, 1, 1, 1})); }, "5 dimensions");
  expect([&] { writer.add_tensor(tensor("b", DType::kQ8_0, {2, 16})); }, "rows of 16 elements");
  writer.add_tensor(tensor("c", DType::kF32, {2}));
  expect([&] { writer.add_tensor(tensor("c", DType::kF32, {2})); }, "c is added twice");
  expect([&] { writer.write(folder / "a.gguf"); }, "tensor c gives 0 bytes, its shape needs 8");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, ACopyOfTheRealParentHoldsTheSame) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const test::TempDir folder;
  const GgufFile parent(test::parent_gguf());
  GgufWriter writer;
  for (const auto& [key, value] : parent.metadata()) {
    writer.add_value(key, value);
  }
  for (const StoredTensor& tensor : parent.tensors()) {
    writer.add_tensor(copy_of(tensor));
  }
  writer.write(folder / "copy.gguf");
  const GgufFile copy(folder / "copy.gguf");
  EXPECT_TRUE(copy.metadata() == parent.metadata());
  ASSERT_EQ(copy.tensors().size(), parent.tensors().size());
  for (std::size_t i = 0; i < copy.tensors().size(); ++i) {
    const StoredTensor& left = copy.tensors()[i];
    const StoredTensor& right = parent.tensors()[i];
    EXPECT_EQ(left.name, right.name);
    EXPECT_EQ(left.dtype, right.dtype);
    EXPECT_EQ(left.shape, right.shape);
    ASSERT_EQ(left.bytes.size(), right.bytes.size());
    EXPECT_EQ(std::memcmp(left.bytes.data(), right.bytes.data(), left.bytes.size()), 0);
  }
}

}  // namespace
}  // namespace puzzle
