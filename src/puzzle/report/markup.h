// Writes HTML and SVG as a tree, so that what comes out is well-formed and escaped by construction.
//
//   Markup page;
//   page.open("p", {{"class", "lead"}}).text("a < b").close();   // <p class="lead">a &lt; b</p>
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

// Escapes & < > " ' and replaces what XML cannot hold (control characters, broken UTF-8) by U+FFFD.
[[nodiscard]] std::string escape_markup(std::string_view text);

struct Attribute {
  Attribute(const char* attribute_name, std::string_view text)
      : name(attribute_name), value(text) {}
  // Coordinates: at most two decimals.
  template <class Number>
    requires std::integral<Number> || std::floating_point<Number>
  Attribute(const char* attribute_name, Number number)
      : name(attribute_name), value(format_coordinate(static_cast<double>(number))) {}

  const char* name;
  std::string value;

 private:
  static std::string format_coordinate(double number);
};

class Markup {
 public:
  Markup& open(std::string_view tag, const std::vector<Attribute>& attributes = {});
  // Ends the innermost open element.
  Markup& close();
  // <tag …/>: for SVG shapes and HTML's void elements (meta, br) only.
  Markup& leaf(std::string_view tag, const std::vector<Attribute>& attributes = {});
  // <tag …>content</tag>
  Markup& element(std::string_view tag, const std::vector<Attribute>& attributes,
                  std::string_view content);
  Markup& element(std::string_view tag, std::string_view content) {
    return element(tag, {}, content);
  }
  Markup& text(std::string_view content);
  // Finished markup, as another Markup gave it, or a style sheet.
  Markup& raw(std::string_view markup);

  // The whole; every element must be closed.
  [[nodiscard]] std::string str() const;
  [[nodiscard]] bool empty() const { return out_.empty(); }

 private:
  void begin_tag(std::string_view tag, const std::vector<Attribute>& attributes);

  std::string out_;
  std::vector<std::string> stack_;
};

}  // namespace puzzle
