// Byte-pair encoding of one pre-token: by merge ranks or by piece scores, over bytes or characters.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "puzzle/text/piece_cache.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// What two neighbouring tokens become.
struct Merge {
  std::int32_t left = -1;  // -1: a free slot
  std::int32_t right = -1;
  std::uint32_t rank = 0;  // lower goes first; equal ranks leftmost first
  std::int32_t id = -1;
};

// All merges of a checked spec. From scores: every way to put a piece together from two others,
// ranked by the piece's score, equal scores equal.
[[nodiscard]] std::vector<Merge> make_merges(const TokenizerSpec& spec);

// Hash table of all merges; open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(const std::vector<Merge>& merges);

  // Null if the two do not merge.
  [[nodiscard]] const Merge* find(std::int32_t left, std::int32_t right) const {
    for (std::size_t slot = slot_of(left, right);; slot = (slot + 1) & mask_) {
      const Merge& merge = slots_[slot];
      if (merge.left == left && merge.right == right) {
        return &merge;
      }
      if (merge.left < 0) {
        return nullptr;
      }
    }
  }

 private:
  [[nodiscard]] std::size_t slot_of(std::int32_t left, std::int32_t right) const {
    const std::uint64_t pair =
        (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
    return (pair * 0x9E3779B97F4A7C15ULL) >> shift_;
  }

  std::vector<Merge> slots_;
  std::size_t mask_ = 0;
  int shift_ = 0;
};

// Memory that encoding reuses; one per thread at work.
struct BpeScratch {
  static constexpr std::uint32_t kNoMerge = 0xFFFFFFFF;  // no merge has this rank
  struct Symbol {
    std::int32_t id = -1;  // -1: merged into the one before
    std::int32_t previous = -1;
    std::int32_t next = -1;
  };
  // Ranks lie beside what they order: looking for the lowest must not miss the cache.
  struct Pair {
    std::uint32_t rank = kNoMerge;
    std::int32_t id = -1;  // what the pair becomes
  };
  struct Candidate {
    const Merge* merge = nullptr;
    std::uint32_t rank = kNoMerge;
    std::int32_t position = 0;  // of the left symbol
  };
  PieceCache cache;
  std::vector<std::int32_t> symbols;
  std::vector<Pair> pairs;
  std::vector<Symbol> linked;
  std::vector<Candidate> heap;
};

// May be used from several threads at once, each with its own BpeScratch.
class BpeEncoder {
 public:
  // `spec` has been checked (check_spec).
  explicit BpeEncoder(const TokenizerSpec& spec);

  // Appends the ids of one pre-token.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<std::int32_t>& ids) const;

 private:
  BpeEncoder(const TokenizerSpec& spec, const std::vector<Merge>& merges);
  void encode_cached(std::string_view piece, BpeScratch& scratch,
                     std::vector<std::int32_t>& ids) const;
  void encode_piece(std::string_view piece, BpeScratch& scratch,
                    std::vector<std::int32_t>& ids) const;
  void start_from_bytes(std::string_view piece, std::vector<std::int32_t>& symbols) const;
  void start_from_characters(std::string_view piece, std::vector<std::int32_t>& symbols) const;
  [[nodiscard]] BpeScratch::Pair find_pair(std::int32_t left, std::int32_t right) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;
  void add_candidate(BpeScratch& scratch, std::int32_t left, std::int32_t right) const;

  bool byte_level_ = false;
  bool fuse_unk_ = false;
  std::int32_t unk_ = -1;
  std::array<std::int32_t, 256> byte_ids_{};  // byte-level: the byte; else: <0xNN>; -1: none
  bool byte_fallback_ = false;
  std::unordered_map<char32_t, std::int32_t> character_ids_;
  std::unordered_map<std::string, std::int32_t> whole_ids_;  // only with ignore_merges
  bool ignore_merges_ = false;
  // A space spelling (U+2581) that nothing but itself merges with on its left: a text without
  // pre-tokenizer may be cut before it, which makes it cacheable. Empty: not possible.
  std::string cut_before_;
  MergeTable merges_;
};

}  // namespace puzzle
