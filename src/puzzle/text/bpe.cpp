#include "puzzle/text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "puzzle/base/error.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

// Up to here looking at every pair again is faster than keeping a heap.
constexpr std::size_t kMaxShortSymbols = 64;

std::vector<Merge> ranked_merges(const TokenizerSpec& spec, const TokenIndex& index) {
  std::vector<Merge> merges;
  merges.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) {
    const std::string text = spec.tokens[static_cast<std::size_t>(left)].text +
                             spec.tokens[static_cast<std::size_t>(right)].text;
    merges.push_back({.left = left,
                      .right = right,
                      .rank = static_cast<std::uint32_t>(merges.size()),
                      .id = index.find(text)->second});
  }
  return merges;
}

std::vector<Merge> scored_merges(const TokenizerSpec& spec, const TokenIndex& index) {
  std::vector<float> order = spec.scores;
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  const auto find_piece = [&](std::string_view text) {
    const auto found = index.find(text);
    return found != index.end() && is_piece(spec.tokens[static_cast<std::size_t>(found->second)])
               ? found->second
               : -1;
  };
  std::vector<Merge> merges;
  for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
    const std::string_view text = spec.tokens[id].text;
    if (!is_piece(spec.tokens[id]) || index.find(text)->second != static_cast<std::int32_t>(id)) {
      continue;
    }
    const auto rank =
        std::lower_bound(order.begin(), order.end(), spec.scores[id], std::greater<>()) -
        order.begin();
    for (std::size_t cut = decode_utf8(text).length; cut < text.size();
         cut += decode_utf8(text.substr(cut)).length) {
      const std::int32_t left = find_piece(text.substr(0, cut));
      const std::int32_t right = left < 0 ? -1 : find_piece(text.substr(cut));
      if (right >= 0) {
        merges.push_back({.left = left,
                          .right = right,
                          .rank = static_cast<std::uint32_t>(rank),
                          .id = static_cast<std::int32_t>(id)});
      }
    }
  }
  return merges;
}

// Lowest rank on top, leftmost among equals.
bool goes_later(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

// True if no merge joins something that does not end in `space` with something that starts with it.
bool is_cut_before(const TokenizerSpec& spec, const std::vector<Merge>& merges,
                   std::string_view space) {
  for (const Merge& merge : merges) {
    const std::string& left = spec.tokens[static_cast<std::size_t>(merge.left)].text;
    const std::string& right = spec.tokens[static_cast<std::size_t>(merge.right)].text;
    if (right.starts_with(space) && !left.ends_with(space)) {
      return false;
    }
  }
  return true;
}

BpeScratch::Symbol& symbol_at(BpeScratch& scratch, std::int32_t position) {
  return scratch.linked[static_cast<std::size_t>(position)];
}

// `symbols` as a linked list, from which merged ones drop out in constant time.
void link_symbols(BpeScratch& scratch) {
  const auto count = static_cast<std::int32_t>(scratch.symbols.size());
  scratch.linked.clear();
  for (std::int32_t i = 0; i < count; ++i) {
    scratch.linked.push_back({.id = scratch.symbols[static_cast<std::size_t>(i)],
                              .previous = i - 1,
                              .next = i + 1 < count ? i + 1 : -1});
  }
}

// False where either half was merged away meanwhile.
bool apply_merge(BpeScratch& scratch, const BpeScratch::Candidate& candidate) {
  BpeScratch::Symbol& left = symbol_at(scratch, candidate.position);
  const Merge& merge = *candidate.merge;
  if (left.id != merge.left || left.next < 0 || symbol_at(scratch, left.next).id != merge.right) {
    return false;
  }
  BpeScratch::Symbol& right = symbol_at(scratch, left.next);
  left.id = merge.id;
  right.id = -1;
  left.next = right.next;
  if (left.next >= 0) {
    symbol_at(scratch, left.next).previous = candidate.position;
  }
  return true;
}

// What is left of the list, back in `symbols`.
void collect_symbols(BpeScratch& scratch) {
  scratch.symbols.clear();
  for (std::int32_t i = scratch.linked.empty() ? -1 : 0; i >= 0; i = symbol_at(scratch, i).next) {
    scratch.symbols.push_back(symbol_at(scratch, i).id);
  }
}

}  // namespace

std::vector<Merge> make_merges(const TokenizerSpec& spec) {
  const TokenIndex index = index_tokens(spec.tokens);
  return spec.scores.empty() ? ranked_merges(spec, index) : scored_merges(spec, index);
}

MergeTable::MergeTable(const std::vector<Merge>& merges) {
  slots_.resize(std::bit_ceil(std::max<std::size_t>(merges.size() * 2, 16)));
  mask_ = slots_.size() - 1;
  shift_ = 64 - std::countr_zero(slots_.size());
  for (const Merge& merge : merges) {
    std::size_t slot = slot_of(merge.left, merge.right);
    while (slots_[slot].left >= 0 &&
           (slots_[slot].left != merge.left || slots_[slot].right != merge.right)) {
      slot = (slot + 1) & mask_;
    }
    slots_[slot] = merge;  // a pair listed twice keeps its last rank, as in Hugging Face's reader
  }
}

BpeEncoder::BpeEncoder(const TokenizerSpec& spec) : BpeEncoder(spec, make_merges(spec)) {}

BpeEncoder::BpeEncoder(const TokenizerSpec& spec, const std::vector<Merge>& merges)
    : byte_level_(spec.byte_level),
      fuse_unk_(spec.fuse_unk),
      unk_(spec.unk.value_or(-1)),
      ignore_merges_(spec.ignore_merges),
      merges_(merges) {
  byte_ids_.fill(-1);
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const std::string& text = spec.tokens[i].text;
    const auto id = static_cast<std::int32_t>(i);
    if (const auto byte = parse_byte_token(text); byte && !byte_level_ && byte_ids_[*byte] < 0) {
      byte_ids_[*byte] = id;
    }
    if (!is_piece(spec.tokens[i])) {
      continue;
    }
    const std::optional<std::string> bytes =
        byte_level_ ? alphabet_to_bytes(text) : std::optional<std::string>(text);
    if (ignore_merges_ && bytes) {
      whole_ids_.emplace(*bytes, id);
    }
    if (byte_level_) {
      if (bytes && bytes->size() == 1) {
        byte_ids_[static_cast<std::uint8_t>((*bytes)[0])] = id;
      }
      continue;
    }
    const Utf8Char first = decode_utf8(text);
    if (first.valid && first.length == text.size()) {
      character_ids_.emplace(first.code, id);
    }
  }
  byte_fallback_ = spec.byte_fallback && !byte_level_;
  const std::string& space = spec.decoder.space_spelling;
  if (!byte_level_ && !ignore_merges_ && !space.empty() &&
      character_ids_.contains(decode_utf8(space).code) && is_cut_before(spec, merges, space)) {
    cut_before_ = space;
  }
}

void BpeEncoder::encode(std::string_view piece, BpeScratch& scratch,
                        std::vector<std::int32_t>& ids) const {
  if (!cut_before_.empty()) {
    // A run of spaces stays with the word behind it.
    std::size_t begin = 0;
    std::size_t at = 0;
    while ((at = piece.find(cut_before_, at)) != std::string_view::npos) {
      if (at > begin) {
        encode_cached(piece.substr(begin, at - begin), scratch, ids);
        begin = at;
      }
      while (piece.substr(at).starts_with(cut_before_)) {
        at += cut_before_.size();
      }
    }
    piece.remove_prefix(begin);
  }
  encode_cached(piece, scratch, ids);
}

void BpeEncoder::encode_cached(std::string_view piece, BpeScratch& scratch,
                               std::vector<std::int32_t>& ids) const {
  if (piece.empty()) {
    return;
  }
  if (piece.size() > PieceCache::kMaxPieceBytes) {
    encode_piece(piece, scratch, ids);
    return;
  }
  const std::span<const std::int32_t> known = scratch.cache.find(piece);
  if (known.data() != nullptr) {
    ids.insert(ids.end(), known.begin(), known.end());
    return;
  }
  const std::size_t before = ids.size();
  encode_piece(piece, scratch, ids);
  scratch.cache.insert(piece, std::span(ids).subspan(before));
}

void BpeEncoder::encode_piece(std::string_view piece, BpeScratch& scratch,
                              std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    const auto whole = whole_ids_.find(std::string(piece));
    if (whole != whole_ids_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  scratch.symbols.clear();
  if (byte_level_) {
    start_from_bytes(piece, scratch.symbols);
  } else {
    start_from_characters(piece, scratch.symbols);
  }
  if (scratch.symbols.size() <= kMaxShortSymbols) {
    merge_short(scratch);
  } else {
    merge_long(scratch);
  }
  ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
}

void BpeEncoder::start_from_bytes(std::string_view piece,
                                  std::vector<std::int32_t>& symbols) const {
  bool after_unk = false;
  for (const char byte : piece) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(byte)];
    if (id >= 0) {
      symbols.push_back(id);
    } else if (unk_ >= 0 && !(after_unk && fuse_unk_)) {
      symbols.push_back(unk_);
    }
    after_unk = id < 0;
  }
}

void BpeEncoder::start_from_characters(std::string_view piece,
                                       std::vector<std::int32_t>& symbols) const {
  bool after_unk = false;
  while (!piece.empty()) {
    const Utf8Char character = decode_utf8(piece);
    const std::string_view bytes = piece.substr(0, character.length);
    piece.remove_prefix(character.length);
    if (character.valid) {
      const auto found = character_ids_.find(character.code);
      if (found != character_ids_.end()) {
        symbols.push_back(found->second);
        after_unk = false;
        continue;
      }
    }
    if (byte_fallback_ && std::all_of(bytes.begin(), bytes.end(), [&](char byte) {
          return byte_ids_[static_cast<std::uint8_t>(byte)] >= 0;
        })) {
      for (const char byte : bytes) {
        symbols.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
      }
      after_unk = false;
      continue;
    }
    if (unk_ >= 0 && !(after_unk && fuse_unk_)) {
      symbols.push_back(unk_);
    }
    after_unk = true;
  }
}

BpeScratch::Pair BpeEncoder::find_pair(std::int32_t left, std::int32_t right) const {
  const Merge* merge = merges_.find(left, right);
  return merge == nullptr ? BpeScratch::Pair{}
                          : BpeScratch::Pair{.rank = merge->rank, .id = merge->id};
}

void BpeEncoder::merge_short(BpeScratch& scratch) const {
  std::vector<std::int32_t>& symbols = scratch.symbols;
  std::vector<BpeScratch::Pair>& pairs = scratch.pairs;
  pairs.clear();
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
    pairs.push_back(find_pair(symbols[i], symbols[i + 1]));
  }
  while (!pairs.empty()) {
    const auto lowest =
        std::min_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
          return a.rank < b.rank;  // the first of equal ones
        });
    if (lowest->rank == BpeScratch::kNoMerge) {
      return;
    }
    const auto at = static_cast<std::size_t>(lowest - pairs.begin());
    symbols[at] = lowest->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    pairs.erase(lowest);
    if (at > 0) {
      pairs[at - 1] = find_pair(symbols[at - 1], symbols[at]);
    }
    if (at < pairs.size()) {
      pairs[at] = find_pair(symbols[at], symbols[at + 1]);
    }
  }
}

// What two neighbours (positions in `linked`; -1: none) may become.
void BpeEncoder::add_candidate(BpeScratch& scratch, std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0) {
    return;
  }
  if (const Merge* merge =
          merges_.find(symbol_at(scratch, left).id, symbol_at(scratch, right).id)) {
    scratch.heap.push_back({.merge = merge, .rank = merge->rank, .position = left});
    std::push_heap(scratch.heap.begin(), scratch.heap.end(), goes_later);
  }
}

void BpeEncoder::merge_long(BpeScratch& scratch) const {
  link_symbols(scratch);
  std::vector<BpeScratch::Candidate>& heap = scratch.heap;
  heap.clear();
  const auto count = static_cast<std::int32_t>(scratch.linked.size());
  for (std::int32_t i = 0; i + 1 < count; ++i) {
    add_candidate(scratch, i, i + 1);
  }
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), goes_later);
    const BpeScratch::Candidate top = heap.back();
    heap.pop_back();
    if (apply_merge(scratch, top)) {
      const BpeScratch::Symbol& merged = symbol_at(scratch, top.position);
      add_candidate(scratch, merged.previous, top.position);
      add_candidate(scratch, top.position, merged.next);
    }
  }
  collect_symbols(scratch);
}

}  // namespace puzzle
