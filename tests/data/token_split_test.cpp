#include "puzzle/data/token_split.h"

#include <fstream>
#include <map>
#include <set>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/toy_corpus.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using test::toy;
using test::toy_documents;
using test::ToyCorpus;

// Small parts of 4-token windows: test 4, validation 3, scoring 2, calibration 5 windows.
void set_small_parts(DataOptions& options) {
  options.window = 4;
  options.group_windows = 2;
  options.test_tokens = 16;
  options.validation_tokens = 11;  // rounded up
  options.scoring_tokens = 8;
  options.calibration_tokens = 20;
}

std::vector<const TokenPart*> all_parts(const TokenParts& parts) {
  return {&parts.test, &parts.validation, &parts.scoring, &parts.calibration, &parts.train};
}

std::vector<std::int64_t> starts_of(const TokenPart& part) {
  return {part.starts().begin(), part.starts().end()};
}

TEST(TokenSplit, GivesEveryWindowToOnePart) {
  ToyCorpus corpus({toy_documents('a', 203, 30), toy_documents('b', 102, 7)});
  set_small_parts(corpus.options);
  for (const char* mixture : {"tokens", "stream"}) {
    corpus.options.mixture = mixture;
    const bool is_stream = corpus.options.mixture == "stream";
    const auto file = corpus.load();
    const TokenParts parts = split_tokens(file, corpus.options);
    EXPECT_EQ(parts.test.num_windows(), 4);
    EXPECT_EQ(parts.validation.num_windows(), 3);
    EXPECT_EQ(parts.scoring.num_windows(), 2);
    EXPECT_EQ(parts.calibration.num_windows(), 5);
    std::set<std::int64_t> seen;
    for (const TokenPart* part : all_parts(parts)) {
      for (const std::int64_t start : part->starts()) {
        EXPECT_TRUE(seen.insert(start).second) << start;
        // From the source's first token on; source b starts at token 203.
        EXPECT_EQ((is_stream || start < 203 ? start : start - 203) % 4, 0);
      }
    }
    const std::size_t all = is_stream ? 305 / 4 : 203 / 4 + 102 / 4;
    EXPECT_EQ(seen.size(), all);
    EXPECT_EQ(parts.train.num_windows(), static_cast<std::int64_t>(all) - 14);
    EXPECT_EQ(parts.train.num_tokens(), parts.train.num_windows() * 4);
  }
}

TEST(TokenSplit, DependsOnTheSeedAlone) {
  ToyCorpus corpus({toy_documents('a', 400, 30)});
  set_small_parts(corpus.options);
  const auto file = corpus.load();
  const TokenParts first = split_tokens(file, corpus.options);
  const TokenParts again =
      split_tokens(std::make_shared<const TokenFile>(file->path()), corpus.options);
  corpus.options.seed = 1;
  const TokenParts other = split_tokens(file, corpus.options);
  for (std::size_t p = 0; p < 5; ++p) {
    EXPECT_EQ(starts_of(*all_parts(first)[p]), starts_of(*all_parts(again)[p]));
    EXPECT_EQ(all_parts(first)[p]->content_key(), all_parts(again)[p]->content_key());
    EXPECT_NE(starts_of(*all_parts(first)[p]), starts_of(*all_parts(other)[p]));
    EXPECT_NE(all_parts(first)[p]->content_key(), all_parts(other)[p]->content_key());
  }
}

TEST(TokenSplit, KeepsEarlierPartsWhenLaterOnesChange) {
  ToyCorpus corpus({toy_documents('a', 300, 30), toy_documents('b', 200, 7)});
  set_small_parts(corpus.options);
  const auto file = corpus.load();
  const TokenParts before = split_tokens(file, corpus.options);
  corpus.options.calibration_tokens = 60;
  corpus.options.train_tokens = 40;
  const TokenParts after = split_tokens(file, corpus.options);
  EXPECT_EQ(before.test.content_key(), after.test.content_key());
  EXPECT_EQ(before.validation.content_key(), after.validation.content_key());
  EXPECT_EQ(before.scoring.content_key(), after.scoring.content_key());
  EXPECT_EQ(after.train.num_windows(), 10);
}

TEST(TokenSplit, KeepsNeighboursTogether) {
  ToyCorpus corpus({toy_documents('a', 4 * 64, 30)});
  set_small_parts(corpus.options);
  corpus.options.group_windows = 8;
  const TokenParts parts = split_tokens(corpus.load(), corpus.options);
  std::map<std::int64_t, std::string> owner;
  for (const TokenPart* part : all_parts(parts)) {
    for (const std::int64_t start : part->starts()) {
      owner[start / 4] = part->name();
    }
  }
  int borders = 0;
  for (std::int64_t w = 1; w < 64; ++w) {
    borders += owner[w] != owner[w - 1] ? 1 : 0;
  }
  // 7 borders of the 8 groups, and one cut inside a group for each of the 4 parts before train.
  EXPECT_LE(borders, 7 + 4);
}

std::map<std::int64_t, std::int64_t> letters_of(const TokenPart& part) {
  std::map<std::int64_t, std::int64_t> counts;
  const at::Tensor tokens_BT = part.slice(0, part.num_windows()).tokens_BT;
  for (std::int64_t i = 0; i < tokens_BT.size(0); ++i) {
    ++counts[tokens_BT[i][0].item<std::int64_t>()];
  }
  return counts;
}

TEST(TokenSplit, ShowsEachSourceToEachPart) {
  ToyCorpus corpus(
      {toy_documents('a', 4000, 30), toy_documents('b', 1000, 7), toy_documents('c', 40, 7)});
  set_small_parts(corpus.options);
  corpus.options.scoring_tokens = 12;
  const TokenParts parts = split_tokens(corpus.load(), corpus.options);
  for (const TokenPart* part : all_parts(parts)) {
    EXPECT_EQ(letters_of(*part).size(), 3U) << part->name();
  }
  corpus.options.test_tokens = 4 * 126;  // a tenth of 1000 + 250 + 10 windows
  const auto counts = letters_of(split_tokens(corpus.load(), corpus.options).test);
  EXPECT_EQ(counts.at(toy('a')), 100);
  EXPECT_EQ(counts.at(toy('b')), 25);
  EXPECT_EQ(counts.at(toy('c')), 1);
}

TEST(TokenSplit, MixesByWeightsIfAsked) {
  ToyCorpus corpus({toy_documents('a', 4000, 30), toy_documents('b', 400, 7)}, "13");
  set_small_parts(corpus.options);
  corpus.options.mixture = "weights";
  const TokenParts parts = split_tokens(corpus.load(), corpus.options);
  EXPECT_EQ(letters_of(parts.test).at(toy('a')), 1);
  EXPECT_EQ(letters_of(parts.test).at(toy('b')), 3);
  // The other parts took 2, 1 and 4 windows of b (largest remainders); 90 are left, at 3 of 4.
  EXPECT_EQ(letters_of(parts.validation).at(toy('b')), 2);
  const auto train = letters_of(parts.train);
  const std::int64_t left_b = 100 - 3 - letters_of(parts.validation).at(toy('b')) -
                              letters_of(parts.scoring)[toy('b')] -
                              letters_of(parts.calibration).at(toy('b'));
  EXPECT_EQ(train.at(toy('b')), left_b);
  EXPECT_NEAR(static_cast<double>(train.at(toy('a'))), static_cast<double>(left_b) / 3.0, 1.0);

  corpus.options.train_tokens = 4 * 200;  // 150 of b
  EXPECT_PUZZLE_ERROR((void)split_tokens(corpus.load(), corpus.options), ErrorKind::kUsage,
                      "data.train_tokens: the mixture takes 150 windows of 4 tokens from");
  corpus.options.mixture = "tokens";
  EXPECT_PUZZLE_ERROR((void)split_tokens(corpus.load(), corpus.options), ErrorKind::kUsage,
                      "has a weight, but data.mixture is tokens");
  corpus.options.mixture = "stream";
  EXPECT_PUZZLE_ERROR((void)split_tokens(corpus.load(), corpus.options), ErrorKind::kUsage,
                      "has a weight, but data.mixture is stream");
}

TEST(TokenSplit, MixesAnyBeginningLikeTheWhole) {
  ToyCorpus corpus({toy_documents('a', 3000, 30), toy_documents('b', 1000, 7)});
  set_small_parts(corpus.options);
  corpus.options.calibration_tokens = 4 * 400;
  const TokenParts parts = split_tokens(corpus.load(), corpus.options);
  for (const std::int64_t windows : {4, 40, 200}) {
    const TokenPart head = parts.calibration.first_tokens(windows * 4);
    EXPECT_EQ(head.num_windows(), windows);
    EXPECT_NEAR(static_cast<double>(letters_of(head).at(toy('b'))),
                static_cast<double>(windows) / 4, 1.0);
  }
  EXPECT_EQ(parts.calibration.first_tokens(5).num_windows(), 2);
  EXPECT_EQ(parts.calibration.first_tokens(1 << 20).num_windows(), 400);
  EXPECT_NE(parts.calibration.first_tokens(4).content_key(), parts.calibration.content_key());
}

TEST(TokenSplit, APartCanBeReducedToSomeSources) {
  ToyCorpus corpus({toy_documents('a', 300, 30), toy_documents('b', 200, 7)});
  set_small_parts(corpus.options);
  const auto file = corpus.load();
  const TokenParts parts = split_tokens(file, corpus.options);
  const std::string b = file->sources()[1].name;
  const TokenPart only = parts.train.of_sources(std::vector{b});
  auto letters = letters_of(parts.train);
  EXPECT_EQ(only.num_windows(), letters.at(toy('b')));
  EXPECT_EQ(letters_of(only).size(), 1U);
  EXPECT_NE(only.content_key(), parts.train.content_key());
  EXPECT_EQ(parts.train.of_sources(std::vector{file->sources()[0].name, b}).content_key(),
            parts.train.content_key());
  EXPECT_PUZZLE_ERROR((void)parts.train.of_sources(std::vector<std::string>{"c"}),
                      ErrorKind::kUsage, "'c' is none of the sources; expected");
  EXPECT_PUZZLE_ERROR((void)parts.train.first_tokens(0).of_sources(std::vector{b}),
                      ErrorKind::kUsage, "no window begins in");
}

TEST(TokenSplit, SaysHowMuchTextIsMissing) {
  ToyCorpus corpus({toy_documents('a', 50, 30)});
  set_small_parts(corpus.options);
  EXPECT_PUZZLE_ERROR((void)split_tokens(corpus.load(), corpus.options), ErrorKind::kUsage,
                      "hold 48 tokens in whole windows of 4, expected at least 56 (test 16, "
                      "validation 12, scoring 8, calibration 20); add text");
  corpus.options.calibration_tokens = 12;
  const TokenParts parts = split_tokens(corpus.load(), corpus.options);
  EXPECT_EQ(parts.train.num_windows(), 0);
  EXPECT_EQ(parts.train.slice(0, 0).tokens_BT.sizes(), at::IntArrayRef({0, 4}));
}

TokenPart whole_stream(const ToyCorpus& corpus, bool cross_documents) {
  std::vector<std::int64_t> starts;
  const auto file = corpus.load();
  for (std::int64_t start = 0; start + 6 <= std::ssize(file->tokens()); start += 6) {
    starts.push_back(start);
  }
  return {"all", file, starts, {.window = 6, .cross_documents = cross_documents}};
}

TEST(TokenPart, GivesTokensLabelsAndDocuments) {
  const ToyCorpus corpus({test::Documents{"abcd", "ef", "ghijklmnopqr"}});
  const std::string text = "abcdefghijklmnopqr";
  const std::vector<std::int64_t> document_ends = {4, 6, 18};
  for (const bool cross_documents : {true, false}) {
    const TokenPart part = whole_stream(corpus, cross_documents);
    ASSERT_EQ(part.num_windows(), 3);
    const TokenBatch batch = part.gather(std::vector<std::int64_t>{2, 0});
    for (std::int64_t b = 0; b < 2; ++b) {
      const std::int64_t start = b == 0 ? 12 : 0;
      for (std::int64_t t = 0; t < 6; ++t) {
        const auto index = static_cast<std::size_t>(start + t);
        std::int64_t document = 0;
        while (document_ends[static_cast<std::size_t>(document)] <= start + t) {
          ++document;
        }
        const bool ends = document_ends[static_cast<std::size_t>(document)] == start + t + 1;
        const bool has_label = t < 5 && (cross_documents || !ends);
        EXPECT_EQ(batch.tokens_BT[b][t].item<std::int64_t>(), toy(text[index]));
        EXPECT_EQ(batch.labels_BT[b][t].item<std::int64_t>(),
                  has_label ? toy(text[index + 1]) : kNoLabel);
        EXPECT_EQ(batch.document_ids_BT[b][t].item<std::int32_t>(), document);
      }
    }
  }
  EXPECT_NE(whole_stream(corpus, true).content_key(), whole_stream(corpus, false).content_key());
}

TEST(TokenPart, MasksWhatIsInAnotherDocument) {
  const ToyCorpus corpus({test::Documents{"abcd", "ef", "ghijklmnopqr"}});
  const TokenBatch batch = whole_stream(corpus, false).slice(0, 2);
  const at::Tensor mask = batch.attention_mask();
  ASSERT_EQ(mask.sizes(), at::IntArrayRef({2, 1, 6, 6}));
  EXPECT_EQ(mask.scalar_type(), at::kBool);
  const std::vector<std::vector<int>> documents = {{0, 0, 0, 0, 1, 1}, {2, 2, 2, 2, 2, 2}};
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t t = 0; t < 6; ++t) {
      for (std::int64_t s = 0; s < 6; ++s) {
        const auto& ids = documents[static_cast<std::size_t>(b)];
        const bool expected =
            s <= t && ids[static_cast<std::size_t>(s)] == ids[static_cast<std::size_t>(t)];
        EXPECT_EQ(mask[b][0][t][s].item<bool>(), expected) << b << " " << t << " " << s;
      }
    }
  }
}

TEST(TokenPart, NeedsNoMaskWherePlainCausalAttentionDoesTheSame) {
  const ToyCorpus corpus({test::Documents{"abcd", "ef", "ghijklmnopqr"}});
  EXPECT_FALSE(whole_stream(corpus, true).slice(0, 2).attention_mask().defined());
  EXPECT_FALSE(whole_stream(corpus, false).slice(1, 2).attention_mask().defined());
  EXPECT_FALSE(whole_stream(corpus, false).slice(0, 0).attention_mask().defined());
}

TEST(TokenPart, RefusesATokenOutsideTheVocabulary) {
  const ToyCorpus corpus({test::Documents{"abcdefghi"}});
  const std::filesystem::path path = corpus.load()->path();
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(64 + 4 * 2);
    const std::int32_t bad = test::kToyVocabSize;
    file.write(reinterpret_cast<const char*>(&bad), sizeof bad);
  }
  EXPECT_PUZZLE_ERROR((void)whole_stream(corpus, true).slice(0, 1), ErrorKind::kFormat,
                      "token 2 is 516, expected one of the vocabulary's 516");
}

}  // namespace
}  // namespace puzzle
