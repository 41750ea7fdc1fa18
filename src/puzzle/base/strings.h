// Splitting, joining and sizes for people.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace puzzle {

[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);
[[nodiscard]] std::string join(const std::vector<std::string>& parts, std::string_view separator);
[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);

// The number that makes up all of `text`, or nothing. An integer may be given its `base`.
template <class Number, class... Base>
[[nodiscard]] std::optional<Number> parse_number(std::string_view text, Base... base) {
  Number value{};
  const char* begin = text.data();
  const char* end = begin + text.size();
  const auto [stop, error] = std::from_chars(begin, end, value, base...);
  return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
}

// `text` as one word for a POSIX shell, quoted where it needs to be.
[[nodiscard]] std::string shell_word(const std::string& text);

// "1.5 GiB", "98.4 MB"-style sizes; binary units.
[[nodiscard]] std::string human_bytes(double bytes);
// "134.5 M", "8.03 B"; decimal units.
[[nodiscard]] std::string human_count(double count);
// "3.2 s", "4 min 05 s", "2 h 10 min", "12 days".
[[nodiscard]] std::string human_seconds(double seconds);

// The candidate with the smallest edit distance to `word`; empty if none is close.
[[nodiscard]] std::string nearest(std::string_view word,
                                  const std::vector<std::string>& candidates);

}  // namespace puzzle
