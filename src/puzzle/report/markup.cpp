#include "puzzle/report/markup.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the UTF-8 sequence that starts `text`, 0 if it is not a valid one.
std::size_t valid_utf8_length(std::string_view text) {
  const auto byte = [&text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  char32_t code = length == 1 ? lead : lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) {
      return 0;
    }
    code = (code << 6) | (byte(i) & 0x3FU);
  }
  const bool is_overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
  const bool is_control = code < 0x20 && code != '\t' && code != '\n' && code != '\r';
  const bool is_outside = code > 0x10FFFF || code == 0xFFFE || code == 0xFFFF;
  return is_overlong || is_surrogate || is_control || is_outside ? 0 : length;
}

// Elements after which a line break changes nothing that is seen.
bool ends_line(std::string_view tag) {
  static constexpr std::array<std::string_view, 12> kInline = {
      "a", "b", "code", "span", "small", "em", "text", "tspan", "title", "desc", "td", "th"};
  return std::find(kInline.begin(), kInline.end(), tag) == kInline.end();
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = valid_utf8_length(text);
    switch (text.front()) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += length == 0 ? kReplacement : text.substr(0, length);
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return result;
}

std::string Attribute::format_coordinate(double number) {
  std::string text = fmt::format("{:.2f}", number);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') {
    text.pop_back();
  }
  return text == "-0" ? "0" : text;
}

void Markup::begin_tag(std::string_view tag, const std::vector<Attribute>& attributes) {
  out_ += '<';
  out_ += tag;
  for (const Attribute& attribute : attributes) {
    out_ += fmt::format(" {}=\"{}\"", attribute.name, escape_markup(attribute.value));
  }
}

Markup& Markup::open(std::string_view tag, const std::vector<Attribute>& attributes) {
  begin_tag(tag, attributes);
  out_ += '>';
  stack_.emplace_back(tag);
  return *this;
}

Markup& Markup::close() {
  PUZZLE_CHECK(!stack_.empty(), "no element is open");
  out_ += "</" + stack_.back() + ">";
  if (ends_line(stack_.back())) {
    out_ += '\n';
  }
  stack_.pop_back();
  return *this;
}

Markup& Markup::leaf(std::string_view tag, const std::vector<Attribute>& attributes) {
  begin_tag(tag, attributes);
  out_ += "/>\n";
  return *this;
}

Markup& Markup::element(std::string_view tag, const std::vector<Attribute>& attributes,
                        std::string_view content) {
  return open(tag, attributes).text(content).close();
}

Markup& Markup::text(std::string_view content) {
  out_ += escape_markup(content);
  return *this;
}

Markup& Markup::raw(std::string_view markup) {
  out_ += markup;
  return *this;
}

std::string Markup::str() const {
  PUZZLE_CHECK(stack_.empty(), "<{}> is not closed", stack_.back());
  return out_;
}

}  // namespace puzzle
