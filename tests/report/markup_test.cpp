#include "puzzle/report/markup.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(Markup, WritesNestedElements) {
  Markup out;
  out.open("p", {{"class", "lead"}}).text("1 < 2 & \"so\"").element("b", "on").close();
  EXPECT_EQ(out.str(), "<p class=\"lead\">1 &lt; 2 &amp; &quot;so&quot;<b>on</b></p>\n");
}

TEST(Markup, WritesShortCoordinates) {
  Markup out;
  out.leaf("rect", {{"x", 1.0}, {"y", 0.126}, {"width", 10}, {"height", -0.001}, {"r", 2.5}});
  EXPECT_EQ(out.str(), "<rect x=\"1\" y=\"0.13\" width=\"10\" height=\"0\" r=\"2.5\"/>\n");
}

TEST(Markup, EscapesAttributes) {
  Markup out;
  out.element("a", {{"title", "'\"<>&"}}, "");
  EXPECT_EQ(out.str(), "<a title=\"&#39;&quot;&lt;&gt;&amp;\"></a>");
}

TEST(Markup, ReplacesWhatXmlCannotHold) {
  EXPECT_EQ(escape_markup("tab\tline\n"), "tab\tline\n");
  EXPECT_EQ(escape_markup(std::string("a\0b", 3)), "a\uFFFDb");
  EXPECT_EQ(escape_markup("\x1b[0m"), "\uFFFD[0m");
  EXPECT_EQ(escape_markup("ü €  😀"), "ü €  😀");
  EXPECT_EQ(escape_markup("\xff"), "\uFFFD");
  EXPECT_EQ(escape_markup("\xe2\x82"), "\uFFFD\uFFFD") << "cut short";
  EXPECT_EQ(escape_markup("\xc0\xaf"), "\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(escape_markup("\xe0\x80\xaf"), "\uFFFD\uFFFD\uFFFD") << "overlong";
  EXPECT_EQ(escape_markup("\xed\xa0\x80"), "\uFFFD\uFFFD\uFFFD") << "surrogate";
  EXPECT_EQ(escape_markup("\xf4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD") << "beyond U+10FFFF";
}

TEST(Markup, RefusesUnbalancedElements) {
  Markup open;
  open.open("p");
  EXPECT_PUZZLE_ERROR((void)open.str(), ErrorKind::kInternal, "<p> is not closed");
  Markup closed;
  EXPECT_PUZZLE_ERROR(closed.close(), ErrorKind::kInternal, "no element is open");
}

}  // namespace
}  // namespace puzzle
