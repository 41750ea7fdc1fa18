#include "puzzle/base/strings.h"

#include <gtest/gtest.h>

namespace puzzle {
namespace {

using Parts = std::vector<std::string>;

TEST(Strings, SplitKeepsEmptyParts) {
  EXPECT_EQ(split("a,b", ','), (Parts{"a", "b"}));
  EXPECT_EQ(split(",a,", ','), (Parts{"", "a", ""}));
  EXPECT_EQ(split("", ','), Parts{""});
}

TEST(Strings, JoinUndoesSplit) {
  for (const char* text : {"", "a", "a,b", ",,", "x,,y"}) {
    EXPECT_EQ(join(split(text, ','), ","), text);
  }
  EXPECT_EQ(join({}, ", "), "");
}

TEST(Strings, TrimAndLower) {
  EXPECT_EQ(trim(" \t a b\n"), "a b");
  EXPECT_EQ(trim(" \n "), "");
  EXPECT_EQ(lower("KL-Loss"), "kl-loss");
  EXPECT_EQ(lower("\xC3\x84"), "\xC3\x84");  // bytes outside ASCII stay as they are
}

TEST(Strings, SizesForPeople) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(98.4 * 1024 * 1024), "98.4 MiB");
  EXPECT_EQ(human_bytes(1.4e11), "130.4 GiB");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(134'515'008), "134.5 M");
  EXPECT_EQ(human_count(8.03e9), "8.03 B");
}

TEST(Strings, TimesForPeople) {
  EXPECT_EQ(human_seconds(3.21), "3.2 s");
  EXPECT_EQ(human_seconds(59.94), "59.9 s");
  EXPECT_EQ(human_seconds(59.96), "1 min 00 s");  // not "60.0 s"
  EXPECT_EQ(human_seconds(245), "4 min 05 s");
  EXPECT_EQ(human_seconds(3599.7), "1 h 00 min");
  EXPECT_EQ(human_seconds(7805), "2 h 10 min");
  EXPECT_EQ(human_seconds(71 * 3600.0), "71 h 00 min");
  EXPECT_EQ(human_seconds(100 * 3600.0), "4 days");
}

TEST(Strings, ANumberIsAllOfTheText) {
  EXPECT_EQ(parse_number<std::int64_t>("-12"), -12);
  EXPECT_EQ(parse_number<double>("1e-3"), 1e-3);
  for (const char* text : {"", "12x", " 12", "1.5", "99999999999999999999"}) {
    EXPECT_EQ(parse_number<std::int64_t>(text), std::nullopt) << text;
  }
}

TEST(Strings, AWordForTheShell) {
  EXPECT_EQ(shell_word("a/b-1.yaml"), "a/b-1.yaml");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("it's $HOME"), "'it'\\''s $HOME'");
}

TEST(Strings, NearestForgivesTyposOnly) {
  const Parts known = {"score.num_tokens", "score.method", "seed"};
  EXPECT_EQ(nearest("score.num_token", known), "score.num_tokens");
  EXPECT_EQ(nearest("sede", known), "seed");
  EXPECT_EQ(nearest("seed", known), "seed");
  EXPECT_EQ(nearest("entirely.else", {"seed"}), "");
  EXPECT_EQ(nearest("seed", {}), "");
}

}  // namespace
}  // namespace puzzle
