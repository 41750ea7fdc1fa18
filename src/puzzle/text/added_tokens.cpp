#include "puzzle/text/added_tokens.h"

#include <algorithm>

#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

// The last character of a text that is not empty; invalid bytes count as no character.
Utf8Char last_character(std::string_view text) {
  for (std::size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    const Utf8Char character = decode_utf8(text.substr(text.size() - length));
    if (character.valid && character.length == length) {
      return character;
    }
  }
  return {};
}

bool ends_with_word(std::string_view text) {
  const Utf8Char last = text.empty() ? Utf8Char{} : last_character(text);
  return last.valid && is_word_character(last.code);
}

bool starts_with_word(std::string_view text) {
  const Utf8Char first = text.empty() ? Utf8Char{} : decode_utf8(text);
  return first.valid && is_word_character(first.code);
}

std::size_t white_space_before(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty()) {
    const Utf8Char last = last_character(text);
    if (!last.valid || !is_white_space(last.code)) {
      break;
    }
    text.remove_suffix(last.length);
  }
  return size - text.size();
}

std::size_t white_space_after(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty()) {
    const Utf8Char first = decode_utf8(text);
    if (!first.valid || !is_white_space(first.code)) {
      break;
    }
    text.remove_prefix(first.length);
  }
  return size - text.size();
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : nodes_(1) {
  for (AddedToken& token : tokens) {
    if (token.content.empty()) {
      continue;
    }
    std::size_t node = 0;
    for (const char character : token.content) {
      const auto byte = static_cast<std::uint8_t>(character);
      auto& children = nodes_[node].children;
      const auto child = std::find_if(children.begin(), children.end(),
                                      [&](const auto& entry) { return entry.first == byte; });
      if (child != children.end()) {
        node = static_cast<std::size_t>(child->second);
        continue;
      }
      children.emplace_back(byte, static_cast<std::int32_t>(nodes_.size()));
      node = nodes_.size();
      nodes_.emplace_back();
    }
    is_first_[static_cast<std::uint8_t>(token.content[0])] = true;
    nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(std::move(token));
  }
  if (nodes_[0].children.size() == 1) {
    only_first_ = nodes_[0].children[0].first;
  }
}

std::size_t AddedTokenMatcher::find_candidate(std::string_view text, std::size_t from) const {
  if (only_first_ >= 0) {
    return std::min(text.find(static_cast<char>(only_first_), from), text.size());
  }
  while (from < text.size() && !is_first_[static_cast<std::uint8_t>(text[from])]) {
    ++from;
  }
  return from;
}

std::pair<std::int32_t, std::size_t> AddedTokenMatcher::match_at(std::string_view text,
                                                                 std::size_t from) const {
  std::pair<std::int32_t, std::size_t> longest{-1, 0};
  std::size_t node = 0;
  for (std::size_t at = from; at < text.size(); ++at) {
    const auto byte = static_cast<std::uint8_t>(text[at]);
    const auto& children = nodes_[node].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [&](const auto& entry) { return entry.first == byte; });
    if (child == children.end()) {
      break;
    }
    node = static_cast<std::size_t>(child->second);
    if (nodes_[node].token >= 0) {
      longest = {nodes_[node].token, at + 1 - from};
    }
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special,
                              std::vector<TextPart>& parts) const {
  std::size_t done = 0;  // everything before is in `parts`
  for (std::size_t at = find_candidate(text, 0); !tokens_.empty() && at < text.size();
       at = find_candidate(text, at)) {
    const auto [index, length] = match_at(text, at);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    TextSpan span{.begin = at, .end = at + length};
    at = span.end;
    if (token.special && !parse_special) {
      continue;
    }
    if (token.single_word &&
        (ends_with_word(text.substr(0, span.begin)) || starts_with_word(text.substr(span.end)))) {
      continue;
    }
    if (token.lstrip) {
      span.begin = std::max(done, span.begin - white_space_before(text.substr(0, span.begin)));
    }
    if (token.rstrip) {
      span.end += white_space_after(text.substr(span.end));
    }
    if (done < span.begin) {
      parts.push_back({.span = {.begin = done, .end = span.begin}});
    }
    parts.push_back({.span = span, .id = token.id});
    done = span.end;
  }
  if (done < text.size()) {
    parts.push_back({.span = {.begin = done, .end = text.size()}});
  }
}

}  // namespace puzzle
