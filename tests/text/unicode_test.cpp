#include "puzzle/text/unicode.h"

#include <string>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

using namespace std::string_literals;

TEST(Unicode, DecodesEveryLength) {
  for (const auto& [text, code, length] : {std::tuple{"A"s, 0x41U, 1U},
                                           {"\u00E9"s, 0xE9U, 2U},
                                           {"\u20AC"s, 0x20ACU, 3U},
                                           {"\U0001F642"s, 0x1F642U, 4U},
                                           {"\U0010FFFF"s, 0x10FFFFU, 4U}}) {
    const Utf8Char character = decode_utf8(text + "x");
    EXPECT_TRUE(character.valid);
    EXPECT_EQ(character.code, code);
    EXPECT_EQ(character.length, length);
    std::string again;
    append_utf8(again, character.code);
    EXPECT_EQ(again, text);
  }
}

// Unicode standard, chapter 3.9, table 3-8: one U+FFFD per maximal subpart.
TEST(Unicode, ReplacesMaximalSubparts) {
  const std::string replaced = "\uFFFD";
  EXPECT_EQ(
      replace_invalid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
      "a" + replaced + replaced + replaced + "b" + replaced + "c" + replaced + replaced + "d");
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), replaced + replaced);                 // overlong
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), replaced + replaced + replaced);  // surrogate
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"),
            replaced + replaced + replaced + replaced);  // beyond U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("ok \u20AC"), "ok \u20AC");
}

TEST(Unicode, FindsTheFirstInvalidByteBehindManyGoodOnes) {
  const std::string good(37, 'x');
  EXPECT_EQ(valid_utf8_prefix(good), 37U);
  EXPECT_EQ(valid_utf8_prefix(good + "\u20AC" + good + "\xFF" + good), 37U + 3U + 37U);
}

TEST(Unicode, SeesUnfinishedCharactersOnly) {
  EXPECT_EQ(unfinished_utf8_suffix("a\xE2"), 1U);
  EXPECT_EQ(unfinished_utf8_suffix("a\xE2\x82"), 2U);
  EXPECT_EQ(unfinished_utf8_suffix("a\xF0\x9F\x99"), 3U);
  EXPECT_EQ(unfinished_utf8_suffix("a\u20AC"), 0U);
  EXPECT_EQ(unfinished_utf8_suffix("a\x82"), 0U);      // can never be finished
  EXPECT_EQ(unfinished_utf8_suffix("a\xE0\x80"), 0U);  // nor can this
  EXPECT_EQ(unfinished_utf8_suffix(""), 0U);
}

TEST(Unicode, KnowsItsClasses) {
  EXPECT_TRUE(is_white_space(0x85) && is_white_space(0xA0) && is_white_space(0x3000));
  EXPECT_FALSE(is_white_space(0x180E) || is_white_space(0x200B) || is_white_space('x'));
  EXPECT_TRUE(is_numeric('7') && is_numeric(0xBD) && is_numeric(0x2167) && is_numeric(0x661));
  EXPECT_FALSE(is_numeric('a') || is_numeric(0x4E00));  // CJK "one" is a letter
  EXPECT_TRUE(is_word_character('_') && is_word_character(0x4E00) && is_word_character(0x301));
  EXPECT_FALSE(is_word_character('-') || is_word_character(' ') || is_word_character(0x1F642));
}

TEST(Unicode, NormalisesAroundInvalidBytes) {
  EXPECT_EQ(normalize_unicode("e\u0301\xFF"
                              "e\u0323\u0302",
                              NormalForm::kNfc),
            "\u00E9\xFF\u1EC7");
  EXPECT_EQ(normalize_unicode("\u00E9", NormalForm::kNfd), "e\u0301");
  EXPECT_EQ(normalize_unicode("\uFB01", NormalForm::kNfkc), "fi");
  EXPECT_EQ(normalize_unicode("\uFB01", NormalForm::kNfc), "\uFB01");
}

std::string bytes_to_alphabet(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    append_utf8(text, byte_to_alphabet(static_cast<std::uint8_t>(byte)));
  }
  return text;
}

TEST(Unicode, SpellsBytesAsGpt2Does) {
  EXPECT_EQ(bytes_to_alphabet(" the\n"), "\u0120the\u010A");
  EXPECT_EQ(byte_to_alphabet(0xAD), 0x143U);  // the last of the 68
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(static_cast<char>(byte));
  }
  EXPECT_EQ(alphabet_to_bytes(bytes_to_alphabet(all)), all);
  EXPECT_FALSE(alphabet_to_bytes("a b").has_value());
  EXPECT_FALSE(alphabet_to_bytes("\u4E00").has_value());
}

}  // namespace
}  // namespace puzzle
