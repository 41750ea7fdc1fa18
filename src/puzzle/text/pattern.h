// The regular expressions by which known tokenizers cut text into pre-tokens, run by PCRE2.
//
// They are written for Oniguruma with Unicode classes. PCRE2 differs in \s (it has U+180E), so \s
// and
// \S are spelled out before compiling. Unknown expressions are refused rather than run with a
// meaning that may differ in some corner.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace puzzle {

struct KnownPattern {
  std::string_view name;   // e.g. "llama-3"
  std::string_view regex;  // as tokenizer.json spells it
};
[[nodiscard]] std::span<const KnownPattern> known_patterns();
// The regex of a name that is in the table.
[[nodiscard]] std::string_view known_pattern(std::string_view name);

// A half-open range of bytes.
struct TextSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

// Compiled; may be used from several threads at once.
class Pattern {
 public:
  // Throws Error(kFormat), printing the regex, if it is not a known one.
  Pattern(std::string_view regex, const std::string& place);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  // Appends the non-empty matches in `text` (valid UTF-8), left to right.
  void find_all(std::string_view text, std::vector<TextSpan>& matches) const;

 private:
  class Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace puzzle
