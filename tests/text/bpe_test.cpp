#include "puzzle/text/bpe.h"

#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

// A vocabulary over the letters a to e: the merges join random pieces made before.
TokenizerSpec random_spec(std::uint32_t seed, std::size_t num_merges) {
  std::mt19937 random(seed);
  TokenizerSpec spec;
  for (const char letter : {'a', 'b', 'c', 'd', 'e'}) {
    spec.tokens.push_back({.text = std::string(1, letter)});
  }
  while (spec.merges.size() < num_merges) {
    const auto left = static_cast<std::int32_t>(random() % spec.tokens.size());
    const auto right = static_cast<std::int32_t>(random() % spec.tokens.size());
    const std::string text = spec.tokens[left].text + spec.tokens[right].text;
    if (text.size() <= 12 && !index_tokens(spec.tokens).contains(text)) {
      spec.tokens.push_back({.text = text});
      spec.merges.emplace_back(left, right);
    }
  }
  return spec;
}

std::string random_text(std::mt19937& random, std::size_t length) {
  std::string text;
  for (std::size_t i = 0; i < length; ++i) {
    text.push_back(static_cast<char>('a' + random() % 5));
  }
  return text;
}

std::vector<std::int32_t> encode(const TokenizerSpec& spec, const std::string& text) {
  const BpeEncoder encoder(spec);
  BpeScratch scratch;
  std::vector<std::int32_t> ids;
  encoder.encode(text, scratch, ids);
  return ids;
}

// The definition, word for word: again and again, of all neighbours that merge, the pair of the
// lowest rank, the leftmost of those.
std::vector<std::string> merge_by_definition(const TokenizerSpec& spec, const std::string& text) {
  std::map<std::pair<std::string, std::string>, std::size_t> ranks;
  for (std::size_t i = 0; i < spec.merges.size(); ++i) {
    ranks[{spec.tokens[spec.merges[i].first].text, spec.tokens[spec.merges[i].second].text}] = i;
  }
  std::vector<std::string> parts;
  for (const char letter : text) {
    parts.emplace_back(1, letter);
  }
  for (;;) {
    std::size_t best_rank = spec.merges.size();
    std::size_t best = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = ranks.find({parts[i], parts[i + 1]});
      if (rank != ranks.end() && rank->second < best_rank) {
        best_rank = rank->second;
        best = i;
      }
    }
    if (best_rank == spec.merges.size()) {
      return parts;
    }
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, MergesAsDefinedForShortAndLongPieces) {
  std::mt19937 random(7);
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    const TokenizerSpec spec = random_spec(seed, 60);
    for (const std::size_t length : {1U, 2U, 7U, 30U, 64U, 65U, 200U, 700U}) {
      const std::string text = random_text(random, length);
      std::vector<std::string> found;
      for (const std::int32_t id : encode(spec, text)) {
        found.push_back(spec.tokens[static_cast<std::size_t>(id)].text);
      }
      EXPECT_EQ(found, merge_by_definition(spec, text)) << text;
    }
  }
}

TEST(Bpe, EqualScoresGoLeftmostFirst) {
  TokenizerSpec spec;
  spec.tokens = {{.text = "a"}, {.text = "b"}, {.text = "ab"}, {.text = "ba"}, {.text = "aba"}};
  spec.scores = {-9, -9, -1, -1, -5};
  EXPECT_EQ(encode(spec, "bab"), (std::vector<std::int32_t>{3, 1}));
  EXPECT_EQ(encode(spec, "aba"), (std::vector<std::int32_t>{4}));
  spec.scores[2] = -0.5F;
  EXPECT_EQ(encode(spec, "bab"), (std::vector<std::int32_t>{1, 2}));
}

TEST(Bpe, ScoresJoinAnyTwoPiecesButNoControlTokens) {
  TokenizerSpec spec;
  spec.tokens = {{.text = "a"}, {.text = "b"}, {.text = "ab", .kind = TokenKind::kControl}};
  spec.scores = {-1, -2, 0};
  EXPECT_EQ(encode(spec, "ab"), (std::vector<std::int32_t>{0, 1}));
}

TEST(Bpe, IgnoreMergesTakesWholePieces) {
  TokenizerSpec spec;
  spec.byte_level = true;
  spec.tokens = {{.text = "a"},
                 {.text = "b"},
                 {.text = "\u0120"},
                 {.text = "\u0120"
                          "ab"}};
  EXPECT_EQ(encode(spec, " ab"), (std::vector<std::int32_t>{2, 0, 1}));
  spec.ignore_merges = true;
  EXPECT_EQ(encode(spec, " ab"), (std::vector<std::int32_t>{3}));
}

TEST(Bpe, UnknownCharactersFallBackOrFuseOrVanish) {
  TokenizerSpec spec;
  spec.tokens = {{.text = "<unk>", .kind = TokenKind::kUnknown}, {.text = "a"}};
  EXPECT_EQ(encode(spec, "xay"), (std::vector<std::int32_t>{1}));
  spec.unk = 0;
  EXPECT_EQ(encode(spec, "xyaz"), (std::vector<std::int32_t>{0, 0, 1, 0}));
  spec.fuse_unk = true;
  EXPECT_EQ(encode(spec, "xyaz"), (std::vector<std::int32_t>{0, 1, 0}));
  spec.byte_fallback = true;
  for (int byte = 0; byte < 256; ++byte) {
    spec.tokens.push_back(
        {.text = byte_token(static_cast<std::uint8_t>(byte)), .kind = TokenKind::kByte});
  }
  EXPECT_EQ(encode(spec, "a\u00E9\xFF"),
            (std::vector<std::int32_t>{1, 2 + 0xC3, 2 + 0xA9, 2 + 0xFF}));
}

TEST(Bpe, MillionsOfCharactersWithoutASpaceStayFast) {
  std::mt19937 random(3);
  const TokenizerSpec spec = random_spec(1, 200);
  const std::string text = random_text(random, 1'000'000);
  std::string joined;
  for (const std::int32_t id : encode(spec, text)) {
    joined += spec.tokens[static_cast<std::size_t>(id)].text;
  }
  EXPECT_EQ(joined, text);
}

TEST(PieceCache, KeepsWhatItIsGivenThroughGrowthAndRestarts) {
  PieceCache cache;
  EXPECT_EQ(cache.find("x").data(), nullptr);
  cache.insert("empty", {});
  EXPECT_NE(cache.find("empty").data(), nullptr);
  constexpr std::int32_t kPieces = 300'000;  // more than it holds at once
  for (std::int32_t i = 0; i < kPieces; ++i) {
    const std::string piece = "piece " + std::to_string(i);
    ASSERT_EQ(cache.find(piece).data(), nullptr);
    cache.insert(piece, std::vector<std::int32_t>{i, -i});
    const std::span<const std::int32_t> ids = cache.find(piece);
    ASSERT_EQ(std::vector<std::int32_t>(ids.begin(), ids.end()),
              (std::vector<std::int32_t>{i, -i}));
  }
  const std::string last = "piece " + std::to_string(kPieces - 1000);
  EXPECT_EQ(cache.find(last)[0], kPieces - 1000);
}

}  // namespace
}  // namespace puzzle
