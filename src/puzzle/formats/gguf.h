// GGUF files: llama.cpp's container of metadata and tensors.
//
//   "GGUF" | u32 version | u64 tensors | u64 keys
//   per key:    string name | u32 type | value         string = u64 length + bytes
//   per tensor: string name | u32 dims | u64 ne[dims] | u32 ggml type | u64 offset
//   padding to the alignment | tensor data, each tensor padded to the alignment
//
// Read: versions 2 and 3, little-endian. Written: version 3, alignment 32, offsets without gaps
// (which llama.cpp demands). A split file (NAME-00001-of-0000N.gguf and its neighbours) is opened
// by its first part, which has the keys. Refused by name: version 1, big-endian files, nested
// arrays.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "puzzle/formats/stored_tensor.h"

namespace puzzle {

using GgufValue =
    std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                 std::int32_t, float, bool, std::string, std::uint64_t, std::int64_t, double,
                 std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                 std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                 std::vector<float>, std::vector<bool>, std::vector<std::string>,
                 std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

// "u32", "string[3]": for messages and `inspect`.
[[nodiscard]] std::string gguf_type_name(const GgufValue& value);

class GgufFile {
 public:
  // Throws Error(kIo) if it or another part cannot be opened, Error(kFormat) for its content.
  explicit GgufFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_->path(); }
  // Of all parts, in order; path() alone where the file is not split.
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const { return files_; }
  [[nodiscard]] const std::map<std::string, GgufValue, std::less<>>& metadata() const {
    return metadata_;
  }
  // In file order, part by part. Types without a decoder are listed too; dequantize() refuses them
  // by name.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }

  // Null if there is none of that name.
  [[nodiscard]] const StoredTensor* find_tensor(std::string_view name) const;
  // Throws Error(kFormat), naming the file and the nearest name.
  [[nodiscard]] const StoredTensor& tensor(std::string_view name) const;
  [[nodiscard]] const GgufValue* find_value(std::string_view key) const;
  [[nodiscard]] bool has(std::string_view key) const { return find_value(key) != nullptr; }

  // Typed values: Error(kFormat) with file and key where the key is absent (without a fallback) or
  // of another kind. Integers of any width are integers; u64 beyond 2^63 - 1 is refused; f32 and
  // f64 are reals, and so are integers.
  [[nodiscard]] std::int64_t int_value(std::string_view key) const;
  [[nodiscard]] std::int64_t int_value(std::string_view key, std::int64_t fallback) const;
  [[nodiscard]] double real_value(std::string_view key) const;
  [[nodiscard]] double real_value(std::string_view key, double fallback) const;
  [[nodiscard]] bool bool_value(std::string_view key, bool fallback) const;
  [[nodiscard]] const std::string& string_value(std::string_view key) const;
  [[nodiscard]] std::string string_value(std::string_view key, const std::string& fallback) const;
  [[nodiscard]] std::vector<std::int64_t> int_list(std::string_view key) const;
  // One value per layer: an array of exactly `count`, or one number for all.
  [[nodiscard]] std::vector<std::int64_t> int_list(std::string_view key, std::int64_t count) const;
  [[nodiscard]] const std::vector<float>& float_list(std::string_view key) const;
  [[nodiscard]] const std::vector<std::string>& string_list(std::string_view key) const;

 private:
  GgufFile() = default;

  // One file as it is, split or not.
  void read(const std::filesystem::path& path);
  // The other parts of a split file of which this is the first (gguf_parts.cpp).
  void add_parts(std::int64_t parts);

  [[nodiscard]] const GgufValue& require_value(std::string_view key) const;

  std::shared_ptr<const MappedFile> file_;
  std::vector<std::filesystem::path> files_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

// Collects keys and tensors, then writes them in one pass in the order they were added. Equal calls
// give equal bytes. Misuse (a key or tensor twice, a name of 64 bytes or more, more than 4
// dimensions, rows that do not fill blocks) is Error(kInternal).
class GgufWriter {
 public:
  GgufWriter& add_u32(std::string key, std::uint32_t value);
  GgufWriter& add_f32(std::string key, float value);
  GgufWriter& add_string(std::string key, std::string value);
  // Any value, e.g. one taken from a GgufFile.
  GgufWriter& add_value(std::string key, GgufValue value);

  GgufWriter& add_tensor(TensorToWrite tensor);

  // Throws Error(kIo). Calls each tensor's `produce` once.
  void write(const std::filesystem::path& path) const;

 private:
  [[nodiscard]] std::string header() const;

  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<TensorToWrite> tensors_;
  std::set<std::string> key_names_;
  std::set<std::string> tensor_names_;
};

}  // namespace puzzle
