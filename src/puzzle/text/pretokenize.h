// From the text between added tokens to pre-tokens: normalizer and pre-tokenizer.
//
// A pre-token is what BPE never merges across. Wherever text is cut, a run of bytes that are not
// valid UTF-8 is a pre-token of its own.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "puzzle/text/pattern.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

void normalize(std::span<const NormalizerStep> steps, std::string& text);

// The result of PreTokenizer::split, and its scratch memory; reuse it between calls.
struct PreTokens {
  std::string_view text;        // into the caller's text, or into `rewritten`
  std::vector<TextSpan> spans;  // non-empty ranges of `text` in order

  bool is_valid = true;   // UTF-8
  std::string rewritten;  // where a step changed the text (spaces to U+2581, a prefix space)
  std::string rewriting;
  std::vector<TextSpan> next;
  std::vector<TextSpan> matches;
};

// May be used from several threads at once, each with its own PreTokens.
class PreTokenizer {
 public:
  // Throws Error(kFormat), printing the regex, for a pattern that is not a known one, and for a
  // step after ByteLevel.
  PreTokenizer(const std::vector<PreTokenizerStep>& steps, const std::string& place);

  // `at_start`: the text opens the whole input (Metaspace's prepend_scheme "first").
  void split(std::string_view text, bool at_start, PreTokens& tokens) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::vector<Pattern> pattern;  // none or one
  };
  void apply(const Step& step, bool at_start, PreTokens& tokens) const;

  std::vector<Step> steps_;
};

// Hugging Face's SplitDelimiterBehavior: cuts `span` at `matches` (inside it, in order) and appends
// the parts.
void split_at_matches(TextSpan span, std::span<const TextSpan> matches, SplitBehavior behavior,
                      bool invert, std::vector<TextSpan>& parts);

}  // namespace puzzle
