#include "puzzle/text/piece_cache.h"

#include <bit>
#include <cstring>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr std::size_t kFirstLog2Slots = 12;
constexpr std::size_t kMaxCachedPieces = std::size_t{1} << 17;

}  // namespace

PieceCache::PieceCache()
    : ids_(1) {  // ids_.data() is never null, so that found differs from absent
  resize(kFirstLog2Slots);
}

std::uint64_t PieceCache::hash_of(std::string_view piece) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t hash = piece.size() * kMultiplier;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  };
  const char* at = piece.data();
  std::size_t left = piece.size();
  for (; left >= 8; left -= 8, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    mix(word);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, at, left);
  mix(word);
  return hash * kMultiplier;
}

void PieceCache::insert(std::string_view piece, std::span<const std::int32_t> ids) {
  PUZZLE_CHECK(!piece.empty() && piece.size() <= kMaxPieceBytes, "{} bytes", piece.size());
  if (num_entries_ >= kMaxCachedPieces) {
    keys_.clear();
    ids_.resize(1);
    num_entries_ = 0;
    entries_.assign(entries_.size(), Entry{});
  } else if (num_entries_ * 2 >= entries_.size()) {
    resize(static_cast<std::size_t>(std::countr_zero(entries_.size())) + 1);
  }
  const std::uint64_t hash = hash_of(piece);
  std::size_t slot = hash >> shift_;
  while (entries_[slot].key_bytes != 0) {
    slot = (slot + 1) & mask_;
  }
  entries_[slot] = {.hash = hash,
                    .key = static_cast<std::uint32_t>(keys_.size()),
                    .ids = static_cast<std::uint32_t>(ids_.size()),
                    .key_bytes = static_cast<std::uint16_t>(piece.size()),
                    .num_ids = static_cast<std::uint16_t>(ids.size())};
  keys_ += piece;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++num_entries_;
}

void PieceCache::resize(std::size_t log2_slots) {
  std::vector<Entry> old = std::move(entries_);
  entries_.assign(std::size_t{1} << log2_slots, Entry{});
  mask_ = entries_.size() - 1;
  shift_ = 64 - static_cast<int>(log2_slots);
  for (const Entry& entry : old) {
    if (entry.key_bytes == 0) {
      continue;
    }
    std::size_t slot = entry.hash >> shift_;
    while (entries_[slot].key_bytes != 0) {
      slot = (slot + 1) & mask_;
    }
    entries_[slot] = entry;
  }
}

}  // namespace puzzle
