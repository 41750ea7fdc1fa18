#include "puzzle/report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "report/check_page.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;

TEST(Page, HasSectionsAndContents) {
  const Page page{
      "A & B", "why", {{"one", "First", "lead", "<p>body</p>"}, {"two", "2", "", ""}}, "end"};
  const std::string text = render_page(page);
  test::expect_sound_page(text);
  EXPECT_THAT(text, HasSubstr("<title>A &amp; B</title>"));
  EXPECT_THAT(text, HasSubstr("<a href=\"#one\">First</a>"));
  EXPECT_THAT(text, HasSubstr("<section id=\"two\"><h2>2</h2>"));
  EXPECT_THAT(text, HasSubstr("prefers-color-scheme: dark"));
}

TEST(Page, TablesMarkHeadingsNumbersAndErrors) {
  Markup out;
  add_table(out, {{"name", false}, {"value"}}, {{{"x", Cell("1.5", "± 0.1")}, true}});
  const std::string text = out.str();
  EXPECT_THAT(text, HasSubstr("<th scope=\"col\" class=\"n\">value</th>"));
  EXPECT_THAT(text, HasSubstr("<tr class=\"ours\"><th scope=\"row\">x</th>"
                              "<td class=\"n\">1.5<span class=\"pm\"> ± 0.1</span></td>"));
}

TEST(Page, ATableRefusesRowsOfAnotherWidth) {
  Markup out;
  EXPECT_PUZZLE_ERROR(add_table(out, {{"a"}, {"b"}}, {{{"1"}}}), ErrorKind::kInternal,
                      "1 cells in 2 columns");
}

}  // namespace
}  // namespace puzzle
