// Typed access to the metadata of a GGUF file.
#include <algorithm>
#include <type_traits>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/gguf_types.h"

namespace puzzle {
namespace {

template <class T>
constexpr bool kIsGgufInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

[[noreturn]] void fail_value_type(const GgufFile& file, std::string_view key,
                                  const GgufValue& value, const char* expected) {
  fail(ErrorKind::kFormat, "{}: the key {} is of type {}, expected {}", file.path().string(), key,
       gguf_type_name(value), expected);
}

template <class T>
std::int64_t to_int64(const GgufFile& file, std::string_view key, T number) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    if (number > static_cast<std::uint64_t>(INT64_MAX)) {
      fail(ErrorKind::kFormat, "{}: the key {} is {}, which is beyond 2^63", file.path().string(),
           key, number);
    }
  }
  return static_cast<std::int64_t>(number);
}

std::int64_t as_int(const GgufFile& file, std::string_view key, const GgufValue& value) {
  return std::visit(
      [&](const auto& held) -> std::int64_t {
        if constexpr (kIsGgufInteger<std::decay_t<decltype(held)>>) {
          return to_int64(file, key, held);
        } else {
          fail_value_type(file, key, value, "a whole number");
        }
      },
      value);
}

double as_real(const GgufFile& file, std::string_view key, const GgufValue& value) {
  return std::visit(
      [&](const auto& held) -> double {
        using T = std::decay_t<decltype(held)>;
        if constexpr (kIsGgufInteger<T> || std::is_floating_point_v<T>) {
          return static_cast<double>(held);
        } else {
          fail_value_type(file, key, value, "a number");
        }
      },
      value);
}

template <class T>
const T& as_exactly(const GgufFile& file, std::string_view key, const GgufValue& value,
                    const char* expected) {
  const T* held = std::get_if<T>(&value);
  if (held == nullptr) {
    fail_value_type(file, key, value, expected);
  }
  return *held;
}

}  // namespace

std::string gguf_type_name(const GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
          return kGgufTypeOf<T>.name;
        } else {
          return fmt::format("{}[{}]", kGgufTypeOf<typename T::value_type>.name, held.size());
        }
      },
      value);
}

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

const GgufValue& GgufFile::require_value(std::string_view key) const {
  const GgufValue* value = find_value(key);
  if (value == nullptr) {
    std::vector<std::string> keys;
    for (const auto& entry : metadata_) {
      keys.push_back(entry.first);
    }
    const std::string close = nearest(key, keys);
    fail(ErrorKind::kFormat, "{}: the key {} is missing{}", path().string(), key,
         close.empty() ? "" : "; the nearest one is " + close);
  }
  return *value;
}

std::int64_t GgufFile::int_value(std::string_view key) const {
  return as_int(*this, key, require_value(key));
}

std::int64_t GgufFile::int_value(std::string_view key, std::int64_t fallback) const {
  const GgufValue* value = find_value(key);
  return value == nullptr ? fallback : as_int(*this, key, *value);
}

double GgufFile::real_value(std::string_view key) const {
  return as_real(*this, key, require_value(key));
}

double GgufFile::real_value(std::string_view key, double fallback) const {
  const GgufValue* value = find_value(key);
  return value == nullptr ? fallback : as_real(*this, key, *value);
}

bool GgufFile::bool_value(std::string_view key, bool fallback) const {
  const GgufValue* value = find_value(key);
  return value == nullptr ? fallback : as_exactly<bool>(*this, key, *value, "a bool");
}

const std::string& GgufFile::string_value(std::string_view key) const {
  return as_exactly<std::string>(*this, key, require_value(key), "a string");
}

std::string GgufFile::string_value(std::string_view key, const std::string& fallback) const {
  const GgufValue* value = find_value(key);
  return value == nullptr ? fallback : as_exactly<std::string>(*this, key, *value, "a string");
}

std::vector<std::int64_t> GgufFile::int_list(std::string_view key) const {
  const GgufValue& value = require_value(key);
  return std::visit(
      [&](const auto& held) -> std::vector<std::int64_t> {
        using T = std::decay_t<decltype(held)>;
        if constexpr (!std::is_arithmetic_v<T> && !std::is_same_v<T, std::string>) {
          if constexpr (kIsGgufInteger<typename T::value_type>) {
            std::vector<std::int64_t> list;
            list.reserve(held.size());
            for (const auto number : held) {
              list.push_back(to_int64(*this, key, number));
            }
            return list;
          }
        }
        fail_value_type(*this, key, value, "a list of whole numbers");
      },
      value);
}

std::vector<std::int64_t> GgufFile::int_list(std::string_view key, std::int64_t count) const {
  PUZZLE_CHECK(count >= 0, "a list of {} values", count);
  const GgufValue& value = require_value(key);
  const bool is_scalar = std::visit(
      [](const auto& held) { return std::is_arithmetic_v<std::decay_t<decltype(held)>>; }, value);
  if (is_scalar) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(count), as_int(*this, key, value));
  }
  std::vector<std::int64_t> list = int_list(key);
  if (list.size() != static_cast<std::size_t>(count)) {
    fail(ErrorKind::kFormat, "{}: the key {} has {} values, expected {} or a single number",
         path().string(), key, list.size(), count);
  }
  return list;
}

const std::vector<float>& GgufFile::float_list(std::string_view key) const {
  return as_exactly<std::vector<float>>(*this, key, require_value(key), "a list of f32");
}

const std::vector<std::string>& GgufFile::string_list(std::string_view key) const {
  return as_exactly<std::vector<std::string>>(*this, key, require_value(key), "a list of strings");
}

}  // namespace puzzle
