#include "puzzle/text/pretokenize.h"

#include <algorithm>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

// No character below U+0300 is changed by NFC.
bool is_surely_nfc(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char byte) { return static_cast<unsigned char>(byte) >= 0xCC; });
}

void replace_all(std::string& text, std::string_view pattern, std::string_view content) {
  std::size_t at = text.find(pattern);
  if (at == std::string::npos) {
    return;
  }
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  std::size_t copied = 0;
  while (at != std::string::npos) {
    result.append(text, copied, at - copied).append(content);
    copied = at + pattern.size();
    at = text.find(pattern, copied);
  }
  text = result.append(text, copied);
}

struct ApplyNormalizer {
  std::string& text;
  void operator()(const UnicodeNormalizer& step) const {
    if (step.form != NormalForm::kNfc || !is_surely_nfc(text)) {
      text = normalize_unicode(text, step.form);
    }
  }
  void operator()(const PrependNormalizer& step) const {
    if (!text.empty()) {
      text.insert(0, step.text);
    }
  }
  void operator()(const ReplaceNormalizer& step) const {
    replace_all(text, step.pattern, step.content);
  }
};

void find_literal(std::string_view text, std::string_view literal, std::vector<TextSpan>& matches) {
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, at + literal.size())) {
    matches.push_back({.begin = at, .end = at + literal.size()});
  }
}

void find_digits(std::string_view text, std::vector<TextSpan>& matches) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {
      if (byte >= '0' && byte <= '9') {
        matches.push_back({.begin = at, .end = at + 1});
      }
      ++at;
      continue;
    }
    const Utf8Char character = decode_utf8(text.substr(at));
    if (is_numeric(character.code)) {
      matches.push_back({.begin = at, .end = at + character.length});
    }
    at += character.length;
  }
}

// Length of the run of invalid bytes at the start.
std::size_t invalid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Utf8Char character = decode_utf8(text.substr(at));
    if (character.valid) {
      break;
    }
    at += character.length;
  }
  return at;
}

// Calls `rewrite(piece, at_text_start, out)` for every span and makes the result the new text.
template <class Rewrite>
void rewrite_spans(PreTokens& tokens, const Rewrite& rewrite) {
  tokens.rewriting.clear();
  tokens.next.clear();
  for (const TextSpan& span : tokens.spans) {
    const std::size_t begin = tokens.rewriting.size();
    rewrite(tokens.text.substr(span.begin, span.end - span.begin), span.begin == 0,
            tokens.rewriting);
    tokens.next.push_back({.begin = begin, .end = tokens.rewriting.size()});
  }
  tokens.rewritten.swap(tokens.rewriting);
  tokens.spans.swap(tokens.next);
  tokens.text = tokens.rewritten;
}

// Cuts every span at what `find(piece, matches)` finds in it; runs of invalid bytes stay whole.
template <class Find>
void cut_spans(PreTokens& tokens, SplitBehavior behavior, bool invert, const Find& find) {
  tokens.next.clear();
  for (const TextSpan& span : tokens.spans) {
    std::size_t at = span.begin;
    while (at < span.end) {
      const std::string_view rest = tokens.text.substr(at, span.end - at);
      const std::size_t valid = tokens.is_valid ? rest.size() : valid_utf8_prefix(rest);
      const TextSpan part{.begin = at, .end = at + valid};
      tokens.matches.clear();
      find(rest.substr(0, valid), tokens.matches);
      for (TextSpan& match : tokens.matches) {
        match.begin += at;
        match.end += at;
      }
      split_at_matches(part, tokens.matches, behavior, invert, tokens.next);
      at += valid;
      if (at < span.end) {
        const std::size_t invalid = invalid_prefix(rest.substr(valid));
        tokens.next.push_back({.begin = at, .end = at + invalid});
        at += invalid;
      }
    }
  }
  tokens.spans.swap(tokens.next);
}

void apply_metaspace(const MetaspaceStep& step, bool at_start, PreTokens& tokens) {
  rewrite_spans(tokens, [&](std::string_view piece, bool at_text_start, std::string& out) {
    const bool prefix = step.prepend == PrependScheme::kAlways ||
                        (step.prepend == PrependScheme::kFirst && at_start && at_text_start);
    if (prefix && piece[0] != ' ' && !piece.starts_with(step.replacement)) {
      out += step.replacement;
    }
    for (const char byte : piece) {
      if (byte == ' ') {
        out += step.replacement;
      } else {
        out += byte;
      }
    }
  });
  if (step.split) {
    cut_spans(tokens, SplitBehavior::kMergedWithNext, false,
              [&](std::string_view piece, std::vector<TextSpan>& matches) {
                find_literal(piece, step.replacement, matches);
              });
  }
}

}  // namespace

void normalize(std::span<const NormalizerStep> steps, std::string& text) {
  for (const NormalizerStep& step : steps) {
    std::visit(ApplyNormalizer{text}, step);
  }
}

void split_at_matches(TextSpan span, std::span<const TextSpan> matches, SplitBehavior behavior,
                      bool invert, std::vector<TextSpan>& parts) {
  const std::size_t first = parts.size();
  bool previous_is_match = false;
  bool merge_next = false;  // the last part waits for its continuation
  const auto extend = [&](TextSpan part) { parts.back().end = part.end; };
  const auto add = [&](TextSpan part, bool found) {
    if (part.begin == part.end) {
      return;
    }
    const bool is_match = found != invert;
    const bool has_previous = parts.size() > first;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (!is_match) {
          parts.push_back(part);
        }
        break;
      case SplitBehavior::kIsolated:
        parts.push_back(part);
        break;
      case SplitBehavior::kContiguous:
        has_previous&& is_match == previous_is_match ? extend(part) : parts.push_back(part);
        break;
      case SplitBehavior::kMergedWithPrevious:
        has_previous&& is_match && !previous_is_match ? extend(part) : parts.push_back(part);
        break;
      case SplitBehavior::kMergedWithNext:
        merge_next && !is_match ? extend(part) : parts.push_back(part);
        merge_next = is_match;
        break;
    }
    previous_is_match = is_match;
  };
  std::size_t at = span.begin;
  for (const TextSpan& match : matches) {
    add({.begin = at, .end = match.begin}, false);
    add(match, true);
    at = match.end;
  }
  add({.begin = at, .end = span.end}, false);
}

PreTokenizer::PreTokenizer(const std::vector<PreTokenizerStep>& steps, const std::string& place) {
  for (const PreTokenizerStep& step : steps) {
    if (!steps_.empty() && std::holds_alternative<ByteLevelStep>(steps_.back().spec)) {
      fail(ErrorKind::kFormat, "{}: a pre-tokenizer step after ByteLevel, expected ByteLevel last",
           place);
    }
    Step& added = steps_.emplace_back(Step{.spec = step, .pattern = {}});
    if (const auto* split = std::get_if<SplitStep>(&step)) {
      if (split->is_regex) {
        added.pattern.emplace_back(split->pattern, place);
      } else if (split->pattern.empty()) {
        fail(ErrorKind::kFormat, "{}: the pre-tokenizer splits at an empty string", place);
      }
    }
    const auto* byte_level = std::get_if<ByteLevelStep>(&step);
    if (byte_level != nullptr && byte_level->use_regex) {
      added.pattern.emplace_back(known_pattern("gpt-2"), place);
    }
  }
}

void PreTokenizer::apply(const Step& step, bool at_start, PreTokens& tokens) const {
  if (const auto* digits = std::get_if<DigitsStep>(&step.spec)) {
    cut_spans(tokens, digits->individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
              false, find_digits);
  } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&step.spec)) {
    apply_metaspace(*metaspace, at_start, tokens);
  } else if (const auto* byte_level = std::get_if<ByteLevelStep>(&step.spec)) {
    if (byte_level->add_prefix_space) {
      rewrite_spans(tokens, [](std::string_view piece, bool, std::string& out) {
        out += piece[0] == ' ' ? "" : " ";
        out += piece;
      });
    }
    if (byte_level->use_regex) {
      cut_spans(tokens, SplitBehavior::kIsolated, false,
                [&](std::string_view piece, std::vector<TextSpan>& matches) {
                  step.pattern[0].find_all(piece, matches);
                });
    }
  } else {
    const auto& split = std::get<SplitStep>(step.spec);
    cut_spans(tokens, split.behavior, split.invert,
              [&](std::string_view piece, std::vector<TextSpan>& matches) {
                if (split.is_regex) {
                  step.pattern[0].find_all(piece, matches);
                } else {
                  find_literal(piece, split.pattern, matches);
                }
              });
  }
}

void PreTokenizer::split(std::string_view text, bool at_start, PreTokens& tokens) const {
  tokens.text = text;
  tokens.spans.clear();
  if (text.empty()) {
    return;
  }
  tokens.is_valid = valid_utf8_prefix(text) == text.size();
  tokens.spans.push_back({.begin = 0, .end = text.size()});
  for (const Step& step : steps_) {
    apply(step, at_start, tokens);
  }
}

}  // namespace puzzle
