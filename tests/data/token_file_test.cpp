#include "puzzle/data/token_file.h"

#include <cstring>
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "data/toy_corpus.h"
#include "data/toy_tokenizer.h"
#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::toy;
using test::toy_spaced;
using test::ToyCorpus;
using test::ToyTokenizer;

std::vector<std::int32_t> tokens_of(const TokenFile& file) {
  return {file.tokens().begin(), file.tokens().end()};
}

std::vector<std::int64_t> offsets_of(const TokenFile& file) {
  return {file.document_offsets().begin(), file.document_offsets().end()};
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.push_back(entry.path());
  }
  return files;
}

TEST(TokenFile, PutsDocumentsOneAfterTheOther) {
  ToyCorpus corpus({test::Documents{"ab", "c d"}, test::Documents{"e"}});
  corpus.options.document_start = "bos";
  corpus.options.document_end = "eos";
  const auto file = corpus.load();
  EXPECT_EQ(tokens_of(*file),
            (std::vector<std::int32_t>{test::kToyBos, toy('a'), toy('b'), test::kToyEos,
                                       test::kToyBos, toy('c'), toy_spaced('d'), test::kToyEos,
                                       test::kToyBos, toy('e'), test::kToyEos}));
  EXPECT_EQ(offsets_of(*file), (std::vector<std::int64_t>{0, 4, 8, 11}));
  EXPECT_EQ(file->num_documents(), 3);
  EXPECT_EQ(file->document_of(3), 0);
  EXPECT_EQ(file->document_of(4), 1);
  EXPECT_EQ(file->document_of(10), 2);
  EXPECT_EQ(file->vocab_size(), test::kToyVocabSize);
  ASSERT_EQ(file->sources().size(), 2U);
  EXPECT_EQ(file->sources()[0].name, corpus.options.sources[0]);
  EXPECT_EQ(file->sources()[0].num_tokens, 8);
  EXPECT_EQ(file->sources()[0].num_documents, 2);
  EXPECT_EQ(file->sources()[0].num_text_bytes, 5);
  EXPECT_EQ(file->sources()[1].first_token, 8);
  EXPECT_EQ(file->sources()[1].num_tokens, 3);
}

TEST(TokenFile, HoldsAllOfManyDocumentsInOrder) {
  // More than one batch of documents, of very different lengths, so that threads finish out of
  // order.
  std::vector<std::string> documents;
  std::string all;
  for (int i = 0; i < 9000; ++i) {
    documents.emplace_back(static_cast<std::size_t>(1 + (i * 7919) % 97),
                           static_cast<char>('a' + i % 26));
    all += documents.back();
  }
  const ToyCorpus corpus({documents});
  const auto file = corpus.load();
  EXPECT_EQ(file->num_documents(), 9000);
  ASSERT_EQ(file->tokens().size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(file->tokens()[i], toy(all[i])) << i;
  }
}

TEST(TokenFile, JoinsTheParallelPartsOfALongDocument) {
  const test::TempDir folder;
  std::string text;
  while (text.size() < (17U << 20)) {
    text += "some line of a very long document\n";
  }
  write_text_file(folder / "long.txt", text);
  DataOptions options;
  options.sources = {(folder / "long.txt").string()};
  options.document_end = "eos";
  const ToyTokenizer tokenizer;
  const auto file = load_token_file(folder / "cache", options, tokenizer);
  EXPECT_EQ(file->num_documents(), 1);
  std::vector<std::int32_t> expected = tokenizer.encode(text);
  expected.push_back(test::kToyEos);
  EXPECT_TRUE(tokens_of(*file) == expected);
}

TEST(TokenFile, IsMadeOnceForTheSameContent) {
  ToyCorpus corpus({test::Documents{"abc"}});
  const auto first = corpus.load();
  const auto files = files_in(corpus.folder / "cache");
  ASSERT_EQ(files.size(), 1U);
  const auto time = std::filesystem::last_write_time(files[0]);
  EXPECT_EQ(corpus.load()->key(), first->key());
  corpus.options.sources[0] += "@2";  // a weight is no matter of tokens
  corpus.options.window = 7;
  EXPECT_EQ(corpus.load()->key(), first->key());
  EXPECT_EQ(files_in(corpus.folder / "cache").size(), 1U);
  EXPECT_EQ(std::filesystem::last_write_time(files[0]), time);
}

TEST(TokenFile, IsMadeAnewWhenSomethingItDependsOnChanges) {
  ToyCorpus corpus({test::Documents{"abc"}});
  const auto load = [&](const ToyTokenizer& tokenizer) {
    return load_token_file(corpus.folder / "cache", corpus.options, tokenizer);
  };
  std::vector<std::string> keys = {load(ToyTokenizer())->key()};
  const auto expect_new = [&](const std::string& key) {
    EXPECT_EQ(std::count(keys.begin(), keys.end(), key), 0);
    keys.push_back(key);
  };
  expect_new(load(ToyTokenizer({.key = "other"}))->key());
  corpus.options.document_start = "bos";
  expect_new(load(ToyTokenizer())->key());
  corpus.options.document_end = "eos";
  expect_new(load(ToyTokenizer())->key());
  corpus.options.parse_special = true;
  expect_new(load(ToyTokenizer())->key());
  write_text_file(corpus.folder / "source-0.jsonl", "{\"text\": \"abd\"}\n");
  const auto last = load(ToyTokenizer());
  expect_new(last->key());
  EXPECT_EQ(last->tokens()[3], toy('d'));
}

TEST(TokenFile, ChoosesSeparatorsByTheTokenizer) {
  ToyCorpus corpus({test::Documents{"a"}});
  corpus.options.document_end = "auto";
  const auto load = [&](test::ToyOptions options) {
    options.key = std::to_string(options.has_end_of_text) + std::to_string(options.has_eos) +
                  std::to_string(options.adds_bos);
    return tokens_of(
        *load_token_file(corpus.folder / "cache", corpus.options, ToyTokenizer(options)));
  };
  using Tokens = std::vector<std::int32_t>;
  EXPECT_EQ(load({}), (Tokens{toy('a'), test::kToyEos}));
  EXPECT_EQ(load({.has_end_of_text = true}), (Tokens{toy('a'), test::kToyEndOfText}));
  EXPECT_EQ(load({.has_eos = false}), (Tokens{toy('a')}));
  EXPECT_EQ(load({.adds_bos = true}), (Tokens{test::kToyBos, toy('a'), test::kToyEos}));
  corpus.options.document_start = "x";
  corpus.options.document_end = "none";
  EXPECT_EQ(load({}), (Tokens{toy('x'), toy('a')}));
}

TEST(TokenFile, ReadsSpecialTokensInTheTextOnlyIfAsked) {
  ToyCorpus corpus({test::Documents{"<s>a"}});
  EXPECT_EQ(corpus.load()->tokens().size(), 4U);
  corpus.options.parse_special = true;
  EXPECT_EQ(tokens_of(*corpus.load()), (std::vector<std::int32_t>{test::kToyBos, toy('a')}));
}

TEST(TokenFile, RefusesOptionsThatNameNothing) {
  ToyCorpus corpus({test::Documents{"abc"}});
  const DataOptions good = corpus.options;
  const auto load = [&](const ToyTokenizer& tokenizer = ToyTokenizer()) {
    (void)load_token_file(corpus.folder / "cache", corpus.options, tokenizer);
  };
  corpus.options.sources.clear();
  EXPECT_PUZZLE_ERROR(load(), ErrorKind::kUsage, "data.sources: found none");
  corpus.options = good;
  corpus.options.sources.push_back(corpus.folder.path().string());
  EXPECT_PUZZLE_ERROR(load(), ErrorKind::kUsage, "the same text could be in two parts");
  corpus.options = good;
  corpus.options.document_end = "<nowhere>";
  EXPECT_PUZZLE_ERROR(load(), ErrorKind::kUsage, "'<nowhere>' is no token of the vocabulary");
  corpus.options.document_end = "eos";
  EXPECT_PUZZLE_ERROR(load(ToyTokenizer({.has_eos = false})), ErrorKind::kUsage, "has none");
  corpus.options = good;
  corpus.options.document_start = "bos";
  EXPECT_PUZZLE_ERROR(load(ToyTokenizer({.has_bos = false})), ErrorKind::kUsage, "has none");
  corpus.options = good;
  write_text_file(corpus.folder / "source-0.jsonl", "\n{\"text\": \"\"}\n");
  EXPECT_PUZZLE_ERROR(load(), ErrorKind::kUsage, "no text in");
  EXPECT_EQ(std::filesystem::exists(corpus.folder / "cache"), true);
  EXPECT_TRUE(files_in(corpus.folder / "cache").empty());
  write_text_file(corpus.folder / "source-0.jsonl", "{\"text\": \"a\"}\n{broken\n");
  EXPECT_PUZZLE_ERROR(load(), ErrorKind::kFormat, "source-0.jsonl:2");
  EXPECT_TRUE(files_in(corpus.folder / "cache").empty());
}

// What stands in the JSON of a good file, replaced: sizes that lie.
void replace_text(std::string& bytes, const std::string& from, const std::string& to) {
  const std::size_t at = bytes.rfind(from);
  ASSERT_NE(at, std::string::npos) << from;
  ASSERT_EQ(from.size(), to.size());
  bytes.replace(at, from.size(), to);
}

TEST(TokenFile, RefusesBrokenFiles) {
  const ToyCorpus corpus({test::Documents{"abcd", "ef"}, test::Documents{"ghi"}});
  (void)corpus.load();
  const std::string good = read_text_file(files_in(corpus.folder / "cache")[0]);
  const auto set_u64 = [](std::string& bytes, std::size_t at, std::uint64_t value) {
    std::memcpy(bytes.data() + at, &value, sizeof value);
  };
  struct Damage {
    std::function<void(std::string&)> apply;
    std::string message;
  };
  const std::vector<Damage> damages = {
      {[](std::string& b) { b.clear(); }, ""},
      {[](std::string& b) { b.resize(70); }, "no token file"},
      {[](std::string& b) { b[0] = 'X'; }, "no token file"},
      {[](std::string& b) { b.resize(b.size() - 1); }, "the end is missing"},
      {[&](std::string& b) { set_u64(b, b.size() - 16, 1U << 30); }, "a description of 1073741824"},
      {[&](std::string& b) { set_u64(b, b.size() - 16, UINT64_MAX); }, "a description of"},
      {[&](std::string& b) { set_u64(b, b.size() - 16, 3); }, "line 1"},
      {[](std::string& b) { replace_text(b, "\"version\":1", "\"version\":9"); }, "version 9"},
      {[](std::string& b) { replace_text(b, "\"num_tokens\":9,", "\"num_tokens\":99"); }, ""},
      {[](std::string& b) { replace_text(b, "\"num_tokens\":9", "\"num_tokens\":8"); }, ""},
      {[](std::string& b) { replace_text(b, "\"num_documents\":3", "\"num_documents\":2"); }, ""},
      {[](std::string& b) { replace_text(b, "\"num_documents\":3", "\"num_documents\":-"); }, ""},
      {[](std::string& b) { replace_text(b, "\"vocab_size\":516", "\"vocab_size\":0  "); },
       "a vocabulary of 0"},
      {[](std::string& b) { replace_text(b, "\"first_token\":6", "\"first_token\":5"); },
       "source "},
      {[](std::string& b) { replace_text(b, "\"sources\"", "\"sourcez\""); }, "no list of sources"},
      {[](std::string& b) { replace_text(b, "\"key\"", "\"kex\""); }, "key"},
      {[&](std::string& b) { set_u64(b, 64 + 9 * 4 + 4 + 8, 99); }, "do not rise"},
      {[&](std::string& b) { set_u64(b, 64 + 9 * 4 + 4, 1); }, "do not rise"},
  };
  const auto path = corpus.folder / "broken.bin";
  for (std::size_t i = 0; i < damages.size(); ++i) {
    std::string bytes = good;
    damages[i].apply(bytes);
    std::ofstream(path, std::ios::binary) << bytes;
    SCOPED_TRACE(i);
    EXPECT_PUZZLE_ERROR(TokenFile file(path), ErrorKind::kFormat, damages[i].message);
  }
}

TEST(TokenFile, IsMadeAgainWhereABrokenOneLies) {
  const ToyCorpus corpus({test::Documents{"abcd", "ef"}});
  const std::vector<std::int32_t> expected = tokens_of(*corpus.load());
  const auto path = files_in(corpus.folder / "cache")[0];
  std::filesystem::resize_file(path, 80);
  testing::internal::CaptureStderr();
  EXPECT_EQ(tokens_of(*corpus.load()), expected);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_THAT(warning, testing::HasSubstr("the end is missing"));
  EXPECT_THAT(warning, testing::HasSubstr("the run makes it again"));
  EXPECT_THAT(warning, testing::Not(testing::HasSubstr("delete it")));
}

}  // namespace
}  // namespace puzzle
