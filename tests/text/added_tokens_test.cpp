#include "puzzle/text/added_tokens.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

// "[text]" for an added token, "text" for what lies between.
std::vector<std::string> parts_of(std::vector<AddedToken> tokens, const std::string& text,
                                  bool parse_special = true) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i].id = static_cast<std::int32_t>(i);
  }
  const AddedTokenMatcher matcher(tokens);
  std::vector<TextPart> parts;
  matcher.split(text, parse_special, parts);
  std::vector<std::string> result;
  for (const TextPart& part : parts) {
    const std::string piece = text.substr(part.span.begin, part.span.end - part.span.begin);
    result.push_back(part.id < 0 ? piece : "[" + piece + "]");
  }
  return result;
}

using Parts = std::vector<std::string>;

TEST(AddedTokens, TakesTheLongestOfTheLeftmost) {
  EXPECT_EQ(parts_of({{.content = "ab"}, {.content = "abcd"}, {.content = "bcde"}}, "xabcde"),
            (Parts{"x", "[abcd]", "e"}));
  EXPECT_EQ(parts_of({{.content = "ab"}, {.content = "abcd"}}, "abcab"),
            (Parts{"[ab]", "c", "[ab]"}));
  EXPECT_EQ(parts_of({{.content = "<a>"}, {.content = "b"}}, "<b><a"), (Parts{"<", "[b]", "><a"}));
}

TEST(AddedTokens, StripsWhiteSpaceAsAsked) {
  EXPECT_EQ(parts_of({{.content = "<m>", .lstrip = true}}, "a \u3000<m> b"),
            (Parts{"a", "[ \u3000<m>]", " b"}));
  EXPECT_EQ(parts_of({{.content = "<m>", .rstrip = true}}, "a <m>\n\u00A0 b"),
            (Parts{"a ", "[<m>\n\u00A0 ]", "b"}));
  EXPECT_EQ(parts_of({{.content = "<m>", .lstrip = true, .rstrip = true}}, "<m>  <m>"),
            (Parts{"[<m>  ]", "[<m>]"}));
}

TEST(AddedTokens, SingleWordsStandAlone) {
  const std::vector<AddedToken> tokens = {{.content = "<w>", .single_word = true}};
  EXPECT_EQ(parts_of(tokens, "a<w> <w>"), (Parts{"a<w> ", "[<w>]"}));
  EXPECT_EQ(parts_of(tokens, "<w>\u00E9 -<w>-"), (Parts{"<w>\u00E9 -", "[<w>]", "-"}));
}

TEST(AddedTokens, SpecialOnesCanBeTurnedOff) {
  const std::vector<AddedToken> tokens = {{.content = "<s>", .special = true}, {.content = "<u>"}};
  EXPECT_EQ(parts_of(tokens, "<s><u>", false), (Parts{"<s>", "[<u>]"}));
  EXPECT_EQ(parts_of(tokens, "<s><u>", true), (Parts{"[<s>]", "[<u>]"}));
}

TEST(AddedTokens, NoneAndNothing) {
  EXPECT_EQ(parts_of({}, "abc"), (Parts{"abc"}));
  EXPECT_EQ(parts_of({{.content = ""}}, "abc"), (Parts{"abc"}));
  EXPECT_EQ(parts_of({{.content = "a"}}, ""), Parts{});
}

}  // namespace
}  // namespace puzzle
