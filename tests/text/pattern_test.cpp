#include "puzzle/text/pattern.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

std::vector<std::string> pieces(std::string_view name, const std::string& text) {
  const Pattern pattern(known_pattern(name), "test");
  std::vector<TextSpan> spans;
  pattern.find_all(text, spans);
  std::vector<std::string> result;
  for (const TextSpan& span : spans) {
    result.push_back(text.substr(span.begin, span.end - span.begin));
  }
  return result;
}

using Pieces = std::vector<std::string>;

TEST(Pattern, Gpt2LeavesOneSpaceToTheWordAndKnowsLowerCaseContractions) {
  EXPECT_EQ(pieces("gpt-2", "I'm   here, DON'T12 "),
            (Pieces{"I", "'m", "  ", " here", ",", " DON", "'", "T", "12", " "}));
}

TEST(Pattern, Llama3TakesDigitsByThreesAndNewlinesWithWhatIsBeforeThem) {
  EXPECT_EQ(pieces("llama-3", "DON'T 12345\n  x;\n\n"),
            (Pieces{"DON", "'T", " ", "123", "45", "\n", " ", " x", ";\n\n"}));
}

TEST(Pattern, Qwen2TakesSingleDigits) {
  EXPECT_EQ(pieces("qwen-2", "a 12"), (Pieces{"a", " ", "1", "2"}));
}

TEST(Pattern, TekkenCutsAtCapitals) {
  EXPECT_EQ(pieces("tekken", "CamelCaseABC x/\n"), (Pieces{"Camel", "Case", "ABC", " x", "/\n"}));
}

// Oniguruma's \s is Unicode's White_Space, PCRE2's own has U+180E as well.
TEST(Pattern, WhiteSpaceIsUnicodes) {
  EXPECT_EQ(pieces("gpt-2", "a\u00A0\u3000\u0085"), (Pieces{"a", "\u00A0\u3000\u0085"}));
  EXPECT_EQ(pieces("gpt-2", "-\u180E"), (Pieces{"-\u180E"}));
}

TEST(Pattern, CoversLongRunsWithoutRunningOutOfStack) {
  constexpr std::size_t kLength = 1'000'000;
  for (const KnownPattern& known : known_patterns()) {
    for (const char* unit : {" ", "a", "A", "!", "\n", "1", "\u00E9"}) {
      std::string text;
      while (text.size() < kLength) {
        text += unit;
      }
      const Pattern pattern(known.regex, "test");
      std::vector<TextSpan> spans;
      pattern.find_all(text, spans);
      std::size_t at = 0;
      for (const TextSpan& span : spans) {
        ASSERT_EQ(span.begin, at) << known.name;
        at = span.end;
      }
      EXPECT_EQ(at, text.size()) << known.name << " " << unit;
    }
  }
}

TEST(Pattern, RefusesAnUnknownRegexByPrintingIt) {
  EXPECT_PUZZLE_ERROR(
      Pattern(R"(\w+|\s)", "tokenizer.json"), ErrorKind::kFormat,
      R"(tokenizer.json: the pre-tokenizer's regex is not one of the supported ones: \w+|\s)");
}

}  // namespace
}  // namespace puzzle
