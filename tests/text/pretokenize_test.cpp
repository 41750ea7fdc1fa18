#include "puzzle/text/pretokenize.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

using Pieces = std::vector<std::string>;

Pieces pre_tokenize(const std::vector<PreTokenizerStep>& steps, const std::string& text,
                    bool at_start = true) {
  const PreTokenizer pre_tokenizer(steps, "test");
  PreTokens tokens;
  pre_tokenizer.split(text, at_start, tokens);
  Pieces result;
  for (const TextSpan& span : tokens.spans) {
    result.emplace_back(tokens.text.substr(span.begin, span.end - span.begin));
  }
  return result;
}

// The examples in the documentation of Hugging Face's SplitDelimiterBehavior.
TEST(PreTokenize, SplitsLikeHuggingFace) {
  const auto split = [](SplitBehavior behavior, bool invert = false) {
    return pre_tokenize({SplitStep{.pattern = "-", .behavior = behavior, .invert = invert}},
                        "the-final--countdown");
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious),
            (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Pieces{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, true), (Pieces{"-", "-", "-"}));
}

TEST(PreTokenize, SeparatesDigits) {
  EXPECT_EQ(pre_tokenize({DigitsStep{.individual = true}}, "a12\u0661b"),
            (Pieces{"a", "1", "2", "\u0661", "b"}));
  EXPECT_EQ(pre_tokenize({DigitsStep{.individual = false}}, "a12\u0661b"),
            (Pieces{"a", "12\u0661", "b"}));
}

// After Digits every piece is a text of its own: the look-ahead ends with it.
TEST(PreTokenize, StepsSeeOnlyTheirPiece) {
  EXPECT_EQ(pre_tokenize({DigitsStep{.individual = true}, ByteLevelStep{}}, "a   5 b"),
            (Pieces{"a", "   ", "5", " b"}));
}

TEST(PreTokenize, MetaspacePrependsByItsScheme) {
  const auto pieces = [](PrependScheme scheme, const std::string& text, bool at_start) {
    return pre_tokenize({MetaspaceStep{.prepend = scheme}}, text, at_start);
  };
  EXPECT_EQ(pieces(PrependScheme::kAlways, "a  b", false), (Pieces{"\u2581a", "\u2581",
                                                                   "\u2581"
                                                                   "b"}));
  EXPECT_EQ(pieces(PrependScheme::kFirst, "a b", true), (Pieces{"\u2581"
                                                                "a",
                                                                "\u2581"
                                                                "b"}));
  EXPECT_EQ(pieces(PrependScheme::kFirst, "a b", false), (Pieces{"a",
                                                                 "\u2581"
                                                                 "b"}));
  EXPECT_EQ(pieces(PrependScheme::kNever, "a", true), (Pieces{"a"}));
  EXPECT_EQ(pieces(PrependScheme::kAlways, " a", true), (Pieces{"\u2581"
                                                                "a"}));
}

TEST(PreTokenize, AddsAPrefixSpaceOnce) {
  const std::vector<PreTokenizerStep> steps = {ByteLevelStep{.add_prefix_space = true}};
  EXPECT_EQ(pre_tokenize(steps, "a b"), (Pieces{" a", " b"}));
  EXPECT_EQ(pre_tokenize(steps, " a b"), (Pieces{" a", " b"}));
}

TEST(PreTokenize, KeepsRunsOfInvalidBytesApart) {
  EXPECT_EQ(pre_tokenize({ByteLevelStep{}}, "ab \xFF\xC3 cd\xE2\x82"),
            (Pieces{"ab", " ", "\xFF\xC3", " cd", "\xE2\x82"}));
}

TEST(PreTokenize, WithoutStepsEverythingIsOnePiece) {
  EXPECT_EQ(pre_tokenize({}, "a b\xFF"), (Pieces{"a b\xFF"}));
  EXPECT_EQ(pre_tokenize({}, ""), Pieces{});
}

TEST(PreTokenize, RefusesStepsThatMakeNoSense) {
  EXPECT_PUZZLE_ERROR(PreTokenizer({ByteLevelStep{}, DigitsStep{}}, "t.json"), ErrorKind::kFormat,
                      "t.json: a pre-tokenizer step after ByteLevel");
  EXPECT_PUZZLE_ERROR(PreTokenizer({SplitStep{}}, "t.json"), ErrorKind::kFormat,
                      "splits at an empty string");
}

TEST(PreTokenize, NormalizersRunInOrder) {
  std::string text = "e\u0301 x";
  normalize(std::vector<NormalizerStep>{UnicodeNormalizer{NormalForm::kNfc}, PrependNormalizer{">"},
                                        ReplaceNormalizer{.pattern = " ", .content = "__"}},
            text);
  EXPECT_EQ(text, ">\u00E9__x");
  text.clear();
  normalize(std::vector<NormalizerStep>{PrependNormalizer{">"}}, text);
  EXPECT_EQ(text, "");
}

}  // namespace
}  // namespace puzzle
