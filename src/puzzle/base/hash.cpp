#include "puzzle/base/hash.h"

#include <cstring>

#include <fmt/format.h>
#include <xxhash.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"

namespace puzzle {
namespace {

XXH3_state_t* as_state(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

KeyBuilder::KeyBuilder() : state_(XXH3_createState()) {
  PUZZLE_CHECK(state_ != nullptr, "out of memory");
  XXH3_128bits_reset(as_state(state_));
}

KeyBuilder::~KeyBuilder() { XXH3_freeState(as_state(state_)); }

KeyBuilder& KeyBuilder::add(std::string_view label, std::string_view value) {
  return add_bytes(label, std::as_bytes(std::span<const char>(value.data(), value.size())));
}

KeyBuilder& KeyBuilder::add(std::string_view label, std::int64_t value) {
  return add(label, fmt::format("{}", value));
}

KeyBuilder& KeyBuilder::add(std::string_view label, double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return add(label, fmt::format("d{:016x}", bits));
}

KeyBuilder& KeyBuilder::add_bytes(std::string_view label, std::span<const std::byte> bytes) {
  const std::string head = fmt::format("{}:{}:{}:", label.size(), label, bytes.size());
  XXH3_128bits_update(as_state(state_), head.data(), head.size());
  XXH3_128bits_update(as_state(state_), bytes.data(), bytes.size());
  return *this;
}

std::string KeyBuilder::key() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(as_state(state_));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hash_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  KeyBuilder builder;
  builder.add_bytes("file", file.bytes());
  return builder.key();
}

std::uint64_t derive_seed(std::uint64_t seed, std::string_view purpose) {
  return XXH3_64bits_withSeed(purpose.data(), purpose.size(), seed);
}

}  // namespace puzzle
