// Ids of pre-tokens seen before. Words repeat: on prose nine of ten pre-tokens come from here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

// Not for several threads at once. Memory stays below about 20 MB: a full cache starts again.
class PieceCache {
 public:
  PieceCache();

  // Longer pieces are not worth keeping.
  static constexpr std::size_t kMaxPieceBytes = 48;

  // Valid until the next `insert`. `data() == nullptr`: not there.
  [[nodiscard]] std::span<const std::int32_t> find(std::string_view piece) const {
    const std::uint64_t hash = hash_of(piece);
    for (std::size_t slot = hash >> shift_;; slot = (slot + 1) & mask_) {
      const Entry& entry = entries_[slot];
      if (entry.key_bytes == 0) {
        return {};
      }
      if (entry.hash == hash &&
          piece == std::string_view(keys_).substr(entry.key, entry.key_bytes)) {
        return {ids_.data() + entry.ids, entry.num_ids};
      }
    }
  }

  // `piece` is not empty, at most kMaxPieceBytes long and not there yet.
  void insert(std::string_view piece, std::span<const std::int32_t> ids);

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t key = 0;        // offset into keys_
    std::uint32_t ids = 0;        // offset into ids_
    std::uint16_t key_bytes = 0;  // 0: free
    std::uint16_t num_ids = 0;
  };

  [[nodiscard]] static std::uint64_t hash_of(std::string_view piece);
  void resize(std::size_t log2_slots);

  std::vector<Entry> entries_;
  std::size_t mask_ = 0;
  int shift_ = 0;
  std::size_t num_entries_ = 0;
  std::string keys_;
  std::vector<std::int32_t> ids_;
};

}  // namespace puzzle
