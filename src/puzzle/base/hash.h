// Content keys (XXH3, 128 bits) and derived random seeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace puzzle {

// Builds a key from labelled parts; order and labels matter, so equal values under different labels
// differ. Not for secrets.
class KeyBuilder {
 public:
  KeyBuilder();
  ~KeyBuilder();
  KeyBuilder(const KeyBuilder&) = delete;
  KeyBuilder& operator=(const KeyBuilder&) = delete;

  KeyBuilder& add(std::string_view label, std::string_view value);
  KeyBuilder& add(std::string_view label, const char* value) {
    return add(label, std::string_view(value));
  }
  KeyBuilder& add(std::string_view label, std::int64_t value);
  KeyBuilder& add(std::string_view label, int value) { return add(label, std::int64_t{value}); }
  KeyBuilder& add(std::string_view label, bool value) { return add(label, std::int64_t{value}); }
  KeyBuilder& add(std::string_view label, double value);  // by its bits
  KeyBuilder& add_bytes(std::string_view label, std::span<const std::byte> bytes);

  // 32 hexadecimal digits.
  [[nodiscard]] std::string key() const;

 private:
  void* state_;
};

// Key of a file's bytes. Throws Error(kIo).
[[nodiscard]] std::string hash_file(const std::filesystem::path& path);

// A seed for one purpose, e.g. derive_seed(run_seed, "distill-blocks/layer 7/w768"): independent of
// call order, so that skipping finished work changes nothing.
[[nodiscard]] std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose);

}  // namespace puzzle
