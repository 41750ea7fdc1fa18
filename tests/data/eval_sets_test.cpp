#include "puzzle/data/eval_sets.h"

#include <cmath>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "data/toy_tokenizer.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "support/expect_error.h"
#include "support/shared_data.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::kToyBos;
using test::kToyEos;
using test::toy;
using test::toy_spaced;
using test::ToyTokenizer;
using Ids = std::vector<std::int32_t>;

TEST(EncodePair, PutsTheBoundaryWhereTheContextEnds) {
  const EvalChoice choice = encode_pair("ab", " c", ToyTokenizer());
  EXPECT_EQ(choice.ids, (Ids{toy('a'), toy('b'), toy_spaced('c')}));
  EXPECT_EQ(choice.num_context, 2);
  EXPECT_EQ(choice.num_continuation_bytes, 1);
}

TEST(EncodePair, MovesSpacesToTheContinuation) {
  const EvalChoice choice = encode_pair("ab ", "cd", ToyTokenizer());
  EXPECT_EQ(choice.ids, (Ids{toy('a'), toy('b'), toy_spaced('c'), toy('d')}));
  EXPECT_EQ(choice.num_context, 2);
  EXPECT_EQ(choice.num_continuation_bytes, 2);
}

TEST(EncodePair, StartsFromATokenWhereThereIsNoContext) {
  const auto first = [](const test::ToyOptions& options, const std::string& context = "") {
    return encode_pair(context, "ab", ToyTokenizer(options));
  };
  EXPECT_EQ(first({}).ids, (Ids{kToyBos, toy('a'), toy('b')}));
  EXPECT_EQ(first({.has_bos = false}).ids, (Ids{kToyEos, toy('a'), toy('b')}));
  EXPECT_EQ(first({.adds_bos = true}).ids, (Ids{kToyBos, toy('a'), toy('b')}));
  EXPECT_EQ(first({.has_bos = false, .has_eos = false}).ids, (Ids{toy('a'), toy('b')}));
  for (const EvalChoice& choice : {first({}), first({.has_bos = false}), first({.adds_bos = true}),
                                   first({.has_bos = false, .has_eos = false})}) {
    EXPECT_EQ(choice.num_context, 1);
  }
  EXPECT_EQ(first({}, " ").ids, (Ids{kToyBos, toy_spaced('a'), toy('b')}));
  EXPECT_EQ(first({.adds_bos = true}, "x").ids, (Ids{kToyBos, toy('x'), toy('a'), toy('b')}));
  EXPECT_EQ(first({.adds_bos = true}, "x").num_context, 2);
}

// Ids and boundaries of lm-evaluation-harness' rule over the parent's tokenizer in transformers,
// recorded by tests/golden/make_eval_pairs.py.
TEST(EncodePair, AgreesWithTheHarness) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const auto tokenizer = load_tokenizer(test::parent_gguf());
  const Json golden =
      load_json(std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/golden/eval_pairs.json");
  ASSERT_GE(golden.size(), 10U);
  for (const Json& pair : golden) {
    const EvalChoice choice = encode_pair(pair.at("context"), pair.at("continuation"), *tokenizer);
    Ids expected = pair.at("context_ids").get<Ids>();
    EXPECT_EQ(choice.num_context, std::ssize(expected)) << pair;
    const Ids continuation = pair.at("continuation_ids").get<Ids>();
    expected.insert(expected.end(), continuation.begin(), continuation.end());
    EXPECT_EQ(choice.ids, expected) << pair;
  }
}

class EvalSetFiles : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::string& text) {
    write_text_file(folder_ / name, text);
    return folder_ / name;
  }
  EvalSet load(EvalKind kind, const std::filesystem::path& path, EvalSetOptions options = {}) {
    return load_eval_set(kind, path, tokenizer_, options);
  }

  test::TempDir folder_;
  ToyTokenizer tokenizer_;
};

TEST_F(EvalSetFiles, HoldMinimalPairs) {
  write("b.jsonl", R"({"sentence_good": "ab", "sentence_bad": "ba", "UID": "x"})"
                   "\n\n"
                   R"({"sentence_good": "c", "sentence_bad": "d"})");
  write("a.jsonl", R"({"sentence_good": "e", "sentence_bad": "f"})");
  write("notes.md", "ignored");
  const EvalSet set = load(EvalKind::kMinimalPairs, folder_.path());
  ASSERT_EQ(set.questions.size(), 3U);
  EXPECT_EQ(set.questions[0].group, "a");
  EXPECT_EQ(set.questions[1].group, "b");
  EXPECT_EQ(set.questions[1].answer, 0);
  EXPECT_EQ(set.questions[1].choices[0].ids, (Ids{kToyBos, toy('a'), toy('b')}));
  EXPECT_EQ(set.questions[1].choices[1].ids, (Ids{kToyBos, toy('b'), toy('a')}));
  EXPECT_EQ(load(EvalKind::kMinimalPairs, folder_ / "b.jsonl").questions.size(), 2U);
  EXPECT_EQ(load(EvalKind::kMinimalPairs, folder_ / "b.jsonl").name, "b");
}

TEST_F(EvalSetFiles, HoldMultipleChoices) {
  const auto path = write("q.jsonl", R"({"context": "a?", "choices": ["x", " yz"], "answer": 1})"
                                     "\n"
                                     R"({"context": "b ", "choices": ["x", "y"], "answer": 0})"
                                     "\n"
                                     R"({"context": "", "choices": ["x", "y"], "answer": 0})");
  const EvalSet set = load(EvalKind::kMultipleChoice, path);
  ASSERT_EQ(set.questions.size(), 3U);
  EXPECT_EQ(set.questions[0].answer, 1);
  EXPECT_EQ(set.questions[0].choices[0].ids, (Ids{toy('a'), toy('?'), toy_spaced('x')}));
  EXPECT_EQ(set.questions[0].choices[1].ids, (Ids{toy('a'), toy('?'), toy_spaced('y'), toy('z')}));
  EXPECT_EQ(set.questions[0].choices[1].num_context, 2);
  EXPECT_EQ(set.questions[0].choices[1].num_continuation_bytes, 2);
  EXPECT_EQ(set.questions[1].choices[1].ids, (Ids{toy('b'), toy_spaced('y')}));
  EXPECT_EQ(set.questions[2].choices[0].ids, (Ids{kToyBos, toy('x')}));
}

TEST_F(EvalSetFiles, HoldLastWords) {
  const auto json = write("l.jsonl", R"({"text": "ab cd ef\n"})");
  const auto text = write("l.txt", "ab cd ef\n  \nab  cd ef  \n");
  for (const auto& path : {json, text}) {
    const EvalSet set = load(EvalKind::kLastWord, path);
    const EvalChoice& choice = set.questions[0].choices.at(0);
    EXPECT_EQ(choice.ids,
              (Ids{toy('a'), toy('b'), toy_spaced('c'), toy('d'), toy_spaced('e'), toy('f')}));
    EXPECT_EQ(choice.num_context, 4);
  }
  EXPECT_EQ(load(EvalKind::kLastWord, text).questions.size(), 2U);
}

TEST(EvalSetNames, AreThoseOfFilesAndFolders) {
  EXPECT_EQ(eval_set_name("some/arc-easy.jsonl"), "arc-easy");
  EXPECT_EQ(eval_set_name("some/blimp"), "blimp");
  EXPECT_EQ(eval_set_name("some/blimp/"), "blimp");
}

TEST(EvalSetNames, OfOneEvaluationDiffer) {
  EXPECT_NO_THROW(check_eval_set_names({}));
  EXPECT_NO_THROW(check_eval_set_names({"arc/test.jsonl", "lambada/valid.txt"}));
  EXPECT_PUZZLE_ERROR(check_eval_set_names({"arc/test.jsonl", "x.jsonl", "lambada/test.txt"}),
                      ErrorKind::kUsage,
                      "arc/test.jsonl and lambada/test.txt are both called 'test'");
  EXPECT_PUZZLE_ERROR(check_eval_set_names({"blimp", "other/blimp/"}), ErrorKind::kUsage,
                      "rename one");
}

TEST_F(EvalSetFiles, AreSampledBySeed) {
  std::string lines;
  for (char c = 'a'; c <= 'z'; ++c) {
    lines += std::string(R"({"sentence_good": ")") + c + R"(", "sentence_bad": "?"})" + "\n";
  }
  const auto path = write("p.jsonl", lines);
  const auto letters = [&](const EvalSetOptions& options) {
    Ids found;
    for (const EvalQuestion& question : load(EvalKind::kMinimalPairs, path, options).questions) {
      found.push_back(question.choices[0].ids.back());
    }
    return found;
  };
  const Ids sample = letters({.max_questions = 7, .seed = 1});
  EXPECT_EQ(sample.size(), 7U);
  EXPECT_TRUE(std::is_sorted(sample.begin(), sample.end()));
  EXPECT_EQ(letters({.max_questions = 7, .seed = 1}), sample);
  EXPECT_NE(letters({.max_questions = 7, .seed = 2}), sample);
  EXPECT_EQ(letters({.max_questions = 99}).size(), 26U);
  const auto key = [&](const EvalSetOptions& options) {
    return load(EvalKind::kMinimalPairs, path, options).content_key;
  };
  EXPECT_EQ(key({}), key({.seed = 9}));
  EXPECT_NE(key({}), key({.max_questions = 7}));
}

TEST_F(EvalSetFiles, LoseTheBeginningOfLongContexts) {
  const auto path =
      write("q.jsonl", R"({"context": "abcdefgh", "choices": ["x", "y"], "answer": 1})");
  const EvalChoice choice =
      load(EvalKind::kMultipleChoice, path, {.max_tokens = 4}).questions[0].choices[0];
  EXPECT_EQ(choice.ids, (Ids{toy('f'), toy('g'), toy('h'), toy_spaced('x')}));
  EXPECT_EQ(choice.num_context, 3);
  const ToyTokenizer with_bos({.adds_bos = true});
  const EvalChoice kept =
      load_eval_set(EvalKind::kMultipleChoice, path, with_bos, {.max_tokens = 4})
          .questions[0]
          .choices[0];
  EXPECT_EQ(kept.ids, (Ids{kToyBos, toy('g'), toy('h'), toy_spaced('x')}));
  EXPECT_EQ(kept.num_context, 3);
}

TEST_F(EvalSetFiles, AreRefusedWithTheirLineIfBroken) {
  struct Case {
    EvalKind kind;
    std::string text;
    std::string message;
  };
  const std::string good_pair = R"({"sentence_good": "a", "sentence_bad": "b"})";
  const std::vector<Case> cases = {
      {EvalKind::kMinimalPairs, "", "no questions"},
      {EvalKind::kMinimalPairs, good_pair + "\n{oops\n", "broken.jsonl:2"},
      {EvalKind::kMinimalPairs, good_pair + "\n\n[1]\n", "broken.jsonl:3: found array"},
      {EvalKind::kMinimalPairs, R"({"sentence_good": "a"})", "sentence_bad"},
      {EvalKind::kMinimalPairs, R"({"sentence_good": "a", "sentence_bad": 3})", "sentence_bad"},
      {EvalKind::kMinimalPairs, R"({"sentence_good": "a", "sentence_bad": ""})",
       "a continuation of 0 tokens"},
      {EvalKind::kMultipleChoice, R"({"choices": ["a", "b"], "answer": 0})", "context"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": "ab", "answer": 0})", "choices"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": ["a"], "answer": 0})",
       "at least 2"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": ["a", ""], "answer": 0})",
       "expected texts"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": ["a", 2], "answer": 0})",
       "expected texts"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": ["a", "b"], "answer": 2})",
       "answer is 2, expected 0 to 1"},
      {EvalKind::kMultipleChoice, R"({"context": "c", "choices": ["a", "b"], "answer": -1})",
       "answer is -1"},
      {EvalKind::kMultipleChoice,
       R"({"context": "c", "choices": ["a", "bbbbbbbbbbbb"], "answer": 0})",
       "a continuation of 12 tokens, expected 1 to 7"},
      {EvalKind::kLastWord, R"({"text": "word"})", "expected a text of several words"},
      {EvalKind::kLastWord, R"({"words": "a b"})", "text"},
  };
  for (const Case& c : cases) {
    const auto path = write("broken.jsonl", c.text);
    EXPECT_PUZZLE_ERROR((void)load(c.kind, path, {.max_tokens = 8}), ErrorKind::kFormat, c.message);
  }
  EXPECT_PUZZLE_ERROR((void)load(EvalKind::kLastWord, folder_ / "absent.jsonl"), ErrorKind::kIo,
                      "absent.jsonl: no such file");
  EXPECT_PUZZLE_ERROR((void)load(EvalKind::kMinimalPairs, write("x.csv", "a")), ErrorKind::kFormat,
                      "expected a .jsonl file");
}

TEST(EvalSets, ReadRealMinimalPairs) {
  const auto path = test::shared_data("blimp");
  PUZZLE_REQUIRE_FILE(path);
  const EvalSet set = load_eval_set(EvalKind::kMinimalPairs, path, ToyTokenizer());
  EXPECT_EQ(set.questions.size(), 8000U);
  EXPECT_EQ(set.questions.front().group, "adjunct_island");
}

EvalSet two_choice_set(EvalKind kind, std::size_t num_questions) {
  EvalSet set;
  set.kind = kind;
  EvalQuestion question;
  question.choices = {{{1, 5}, 1, 1}, {{1, 5, 5, 5, 5}, 1, 4}};
  question.answer = 1;
  if (kind == EvalKind::kLastWord) {
    question.choices.resize(1);
    question.answer = 0;
  }
  set.questions.assign(num_questions, question);
  return set;
}

TEST(EvalSummary, CountsTheHighestLikelihoodWithAndWithoutLength) {
  const EvalSet set = two_choice_set(EvalKind::kMultipleChoice, 4);
  // Right; right only per byte; wrong; a tie, which the first choice wins.
  const EvalSummary summary = summarize_scores(set, {{{-3, false}, {-2, false}},
                                                     {{-3, false}, {-4, false}},
                                                     {{-1, false}, {-9, false}},
                                                     {{-2, false}, {-2, false}}});
  EXPECT_EQ(summary.num_questions, 4);
  EXPECT_DOUBLE_EQ(summary.accuracy, 0.25);
  EXPECT_NEAR(summary.accuracy_stderr, std::sqrt(0.25 * 0.75 / 3.0), 1e-12);
  EXPECT_DOUBLE_EQ(summary.accuracy_per_byte, 0.75);
  EXPECT_NEAR(summary.accuracy_per_byte_stderr, std::sqrt(0.25 * 0.75 / 3.0), 1e-12);
  EXPECT_DOUBLE_EQ(summary.answer_nats, (2.0 + 4.0 + 9.0 + 2.0) / 4.0);
}

TEST(EvalSummary, WantsTheLastWordToBeTheMostLikelyOne) {
  const EvalSet set = two_choice_set(EvalKind::kLastWord, 2);
  const EvalSummary summary = summarize_scores(set, {{{-3, true}}, {{-1, false}}});
  EXPECT_DOUBLE_EQ(summary.accuracy, 0.5);
  EXPECT_DOUBLE_EQ(summary.answer_nats, 2.0);
  EXPECT_DOUBLE_EQ(summary.answer_nats_stderr, 1.0);
}

}  // namespace
}  // namespace puzzle
