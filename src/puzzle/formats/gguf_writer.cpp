#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_types.h"

namespace puzzle {
namespace {

template <class T>
void append_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void append_text(std::string& out, std::string_view text) {
  append_number(out, static_cast<std::uint64_t>(text.size()));
  out.append(text);
}

template <class T>
void append_element(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    append_text(out, value);
  } else if constexpr (std::is_same_v<T, bool>) {
    append_number(out, static_cast<std::uint8_t>(value ? 1 : 0));
  } else {
    append_number(out, value);
  }
}

void append_value(std::string& out, const GgufValue& value) {
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
          append_number(out, kGgufTypeOf<T>.type);
          append_element(out, held);
        } else {
          using Element = typename T::value_type;
          append_number(out, GgufType::kArray);
          append_number(out, kGgufTypeOf<Element>.type);
          append_number(out, static_cast<std::uint64_t>(held.size()));
          for (const Element& element : held) {
            append_element<Element>(out, element);
          }
        }
      },
      value);
}

void append_padding(std::string& out) {
  out.append(padded_size(out.size(), kGgufAlignment) - out.size(), '\0');
}

std::uint64_t bytes_to_write(const TensorToWrite& tensor) {
  return byte_size(tensor.dtype, num_elements(tensor.shape, tensor.name), tensor.name);
}

}  // namespace

GgufWriter& GgufWriter::add_u32(std::string key, std::uint32_t value) {
  return add_value(std::move(key), value);
}

GgufWriter& GgufWriter::add_f32(std::string key, float value) {
  return add_value(std::move(key), value);
}

GgufWriter& GgufWriter::add_string(std::string key, std::string value) {
  return add_value(std::move(key), std::move(value));
}

GgufWriter& GgufWriter::add_value(std::string key, GgufValue value) {
  PUZZLE_CHECK(!key.empty() && key_names_.insert(key).second, "the GGUF key \"{}\" is added twice",
               key);
  PUZZLE_CHECK(key != "general.alignment", "the alignment of written files is always {}",
               kGgufAlignment);
  metadata_.emplace_back(std::move(key), std::move(value));
  return *this;
}

GgufWriter& GgufWriter::add_tensor(TensorToWrite tensor) {
  const DTypeInfo& info = dtype_info(tensor.dtype);
  PUZZLE_CHECK(!tensor.name.empty() && tensor.name.size() <= kMaxGgufNameBytes,
               "the tensor name \"{}\" is empty or longer than {} bytes", tensor.name,
               kMaxGgufNameBytes);
  PUZZLE_CHECK(info.ggml_type >= 0, "tensor {}: GGUF has no type {}", tensor.name, info.name);
  PUZZLE_CHECK(!tensor.shape.empty() && tensor.shape.size() <= kMaxGgufRank,
               "tensor {} has {} dimensions, GGUF holds 1 to {}", tensor.name, tensor.shape.size(),
               kMaxGgufRank);
  PUZZLE_CHECK(tensor.shape.back() % info.block_elements == 0,
               "tensor {}: rows of {} elements are not whole blocks of {}", tensor.name,
               tensor.shape.back(), info.name);
  PUZZLE_CHECK(tensor_names_.insert(tensor.name).second, "tensor {} is added twice", tensor.name);
  tensors_.push_back(std::move(tensor));
  return *this;
}

std::string GgufWriter::header() const {
  std::string out = "GGUF";
  append_number(out, kGgufVersion);
  append_number(out, static_cast<std::uint64_t>(tensors_.size()));
  append_number(out, static_cast<std::uint64_t>(metadata_.size()));
  for (const auto& [key, value] : metadata_) {
    append_text(out, key);
    append_value(out, value);
  }
  std::uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors_) {
    append_text(out, tensor.name);
    append_number(out, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {
      append_number(out, static_cast<std::uint64_t>(*size));
    }
    append_number(out, static_cast<std::uint32_t>(dtype_info(tensor.dtype).ggml_type));
    append_number(out, offset);
    offset += padded_size(bytes_to_write(tensor), kGgufAlignment);
  }
  append_padding(out);
  return out;
}

void GgufWriter::write(const std::filesystem::path& path) const {
  constexpr std::array<std::byte, kGgufAlignment> kZeros = {};
  AtomicFile file(path);
  file.write(header());
  for (const TensorToWrite& tensor : tensors_) {
    const std::uint64_t size = bytes_to_write(tensor);
    write_tensor_bytes(file, tensor, size);
    file.write(std::span(kZeros).first(padded_size(size, kGgufAlignment) - size));
  }
  file.commit();
}

}  // namespace puzzle
