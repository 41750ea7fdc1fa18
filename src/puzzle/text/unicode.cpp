#include "puzzle/text/unicode.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <utf8proc.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Well-formed second bytes depend on the first (Unicode table 3-7).
struct LeadByte {
  std::uint8_t length = 0;  // 0: cannot start a character
  std::uint8_t second_low = 0x80;
  std::uint8_t second_high = 0xBF;
};

constexpr LeadByte lead_byte(std::uint8_t byte) {
  if (byte < 0x80) {
    return {.length = 1};
  }
  if (byte < 0xC2 || byte > 0xF4) {
    return {.length = 0};
  }
  if (byte < 0xE0) {
    return {.length = 2};
  }
  if (byte < 0xF0) {
    return {.length = 3,
            .second_low = static_cast<std::uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            .second_high = static_cast<std::uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  return {.length = 4,
          .second_low = static_cast<std::uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
          .second_high = static_cast<std::uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
}

struct ByteAlphabet {
  std::array<char32_t, 256> code{};
  std::array<std::int16_t, 324> byte{};  // by code, -1: not in the alphabet
};

constexpr ByteAlphabet make_byte_alphabet() {
  ByteAlphabet alphabet;
  alphabet.byte.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_itself =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const char32_t code = is_itself ? static_cast<char32_t>(byte) : next++;
    alphabet.code[static_cast<std::size_t>(byte)] = code;
    alphabet.byte[code] = static_cast<std::int16_t>(byte);
  }
  return alphabet;
}

constexpr ByteAlphabet kByteAlphabet = make_byte_alphabet();

std::string normalize_valid(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  options |=
      form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) {
    options |= UTF8PROC_COMPAT;
  }
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                             static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  PUZZLE_CHECK(size >= 0, "utf8proc_map: {}", utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size)};
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const LeadByte lead = lead_byte(byte(0));
  if (lead.length == 1) {
    return {.code = byte(0), .length = 1, .valid = true};
  }
  if (lead.length == 0) {
    return {};
  }
  char32_t code = byte(0) & (0x7FU >> lead.length);
  for (std::uint32_t i = 1; i < lead.length; ++i) {
    const std::uint8_t low = i == 1 ? lead.second_low : 0x80;
    const std::uint8_t high = i == 1 ? lead.second_high : 0xBF;
    if (i >= text.size() || byte(i) < low || byte(i) > high) {
      return {.code = 0, .length = i, .valid = false};
    }
    code = (code << 6) | (byte(i) & 0x3FU);
  }
  return {.code = code, .length = lead.length, .valid = true};
}

void append_utf8(std::string& text, char32_t code) {
  const auto push = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xC0 | (code >> 6));
    push(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    push(0xE0 | (code >> 12));
    push(0x80 | ((code >> 6) & 0x3F));
    push(0x80 | (code & 0x3F));
  } else {
    push(0xF0 | (code >> 18));
    push(0x80 | ((code >> 12) & 0x3F));
    push(0x80 | ((code >> 6) & 0x3F));
    push(0x80 | (code & 0x3F));
  }
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    // Eight ASCII bytes at once: most text is.
    while (at + 8 <= text.size()) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080ULL) != 0) {
        break;
      }
      at += 8;
    }
    if (at == text.size()) {
      break;
    }
    const Utf8Char character = decode_utf8(text.substr(at));
    if (!character.valid) {
      return at;
    }
    at += character.length;
  }
  return at;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    result.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (!text.empty()) {
      append_utf8(result, kReplacementCharacter);
      text.remove_prefix(decode_utf8(text).length);
    }
  }
  return result;
}

std::size_t unfinished_utf8_suffix(std::string_view text) {
  for (std::size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const std::string_view suffix = text.substr(text.size() - length);
    const std::uint8_t needed = lead_byte(static_cast<std::uint8_t>(suffix[0])).length;
    if (needed > length) {
      return decode_utf8(suffix).length == length ? length : 0;
    }
    if (needed != 0) {
      return 0;
    }
  }
  return 0;
}

bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(char32_t code) {
  if (code < 0x80) {
    return code >= '0' && code <= '9';
  }
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool is_word_character(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // Join_Control, and the circled and squared letters that are Alphabetic symbols.
      return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9) ||
             (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
             (code >= 0x1F170 && code <= 0x1F189);
  }
}

std::string normalize_unicode(std::string_view text, NormalForm form) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    if (valid > 0) {
      result += normalize_valid(text.substr(0, valid), form);
      text.remove_prefix(valid);
    }
    if (!text.empty()) {
      const std::size_t invalid = decode_utf8(text).length;
      result.append(text.substr(0, invalid));
      text.remove_prefix(invalid);
    }
  }
  return result;
}

char32_t byte_to_alphabet(std::uint8_t byte) { return kByteAlphabet.code[byte]; }

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char character = decode_utf8(text);
    if (!character.valid || character.code >= kByteAlphabet.byte.size() ||
        kByteAlphabet.byte[character.code] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kByteAlphabet.byte[character.code]));
    text.remove_prefix(character.length);
  }
  return bytes;
}

}  // namespace puzzle
