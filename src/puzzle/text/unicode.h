// UTF-8 that may be broken, the character classes that tokenizers ask for, normal forms, and the
// alphabet in which byte-level vocabularies spell bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace puzzle {

// One character at the start of `text` (not empty). Not valid: `length` is that of the longest
// prefix of a well-formed sequence (at least 1), the unit that is replaced by one U+FFFD.
struct Utf8Char {
  char32_t code = 0;
  std::uint32_t length = 1;  // bytes
  bool valid = false;
};
[[nodiscard]] Utf8Char decode_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code);

// Bytes before the first one that is not valid UTF-8.
[[nodiscard]] std::size_t valid_utf8_prefix(std::string_view text);

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// Every invalid sequence becomes U+FFFD.
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);

// Length of the unfinished but so far well-formed character at the end, 0 to 3.
[[nodiscard]] std::size_t unfinished_utf8_suffix(std::string_view text);

[[nodiscard]] bool is_white_space(char32_t code);     // Unicode White_Space
[[nodiscard]] bool is_numeric(char32_t code);         // Nd, Nl, No
[[nodiscard]] bool is_word_character(char32_t code);  // \w: letters, marks, Nd, Nl, Pc, joiners

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Invalid bytes stay where they are; the text between them is normalised.
[[nodiscard]] std::string normalize_unicode(std::string_view text, NormalForm form);

// Byte-level vocabularies (GPT-2) spell bytes 33-126, 161-172 and 174-255 as the character of that
// number and the other 68, in order, as U+0100 upward.
[[nodiscard]] char32_t byte_to_alphabet(std::uint8_t byte);
// Nothing if a character is not in the alphabet.
[[nodiscard]] std::optional<std::string> alphabet_to_bytes(std::string_view text);

}  // namespace puzzle
