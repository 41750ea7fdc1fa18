#include "puzzle/text/corpus.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <zstd.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::string compressed(const std::string& text) {
  std::string result(ZSTD_compressBound(text.size()), '\0');
  result.resize(ZSTD_compress(result.data(), result.size(), text.data(), text.size(), 3));
  return result;
}

std::vector<Document> read_all(const CorpusSource& source, const CorpusOptions& options = {}) {
  CorpusReader reader(source, options);
  std::vector<Document> documents;
  Document document;
  while (reader.next(document)) {
    documents.push_back(document);
  }
  return documents;
}

std::vector<std::string> texts_of(const std::vector<Document>& documents) {
  std::vector<std::string> texts;
  for (const Document& document : documents) {
    texts.push_back(document.text);
  }
  return texts;
}

using Texts = std::vector<std::string>;

TEST(Corpus, ATextFileIsOneDocument) {
  const test::TempDir folder;
  write_text_file(folder / "a.txt", "one\n\ntwo\r\nthree");
  const auto documents = read_all({.path = folder / "a.txt"});
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents[0].text, "one\n\ntwo\r\nthree");
  EXPECT_EQ(documents[0].line, 1);
  EXPECT_EQ(documents[0].file, folder / "a.txt");
  write_text_file(folder / "a.txt", "");
  EXPECT_TRUE(read_all({.path = folder / "a.txt"}).empty());
}

TEST(Corpus, SplitsTextAtBlankLinesOrAtAMarker) {
  const test::TempDir folder;
  write_text_file(folder / "a.txt", "\n\none\ntwo\n \n\nthree\n");
  const auto blank = read_all({.path = folder / "a.txt"}, {.split = DocumentSplit::kBlankLine});
  EXPECT_EQ(texts_of(blank), (Texts{"one\ntwo", "three"}));
  EXPECT_EQ(blank[0].line, 3);
  EXPECT_EQ(blank[1].line, 7);

  write_text_file(folder / "b.txt", "one\n\ntwo\n***\n***\nx***\n***");
  EXPECT_EQ(texts_of(read_all({.path = folder / "b.txt"},
                              {.split = DocumentSplit::kMarker, .marker = "***"})),
            (Texts{"one\n\ntwo", "x***"}));
}

TEST(Corpus, CutsLongDocumentsAtLinesOrCharacters) {
  const test::TempDir folder;
  const std::string text = "12345678\n1234567\nabc\n";
  write_text_file(folder / "a.txt", text);
  const auto documents = read_all({.path = folder / "a.txt"}, {.max_document_bytes = 18});
  EXPECT_EQ(texts_of(documents), (Texts{"12345678\n1234567\n", "abc\n"}));
  EXPECT_FALSE(documents[0].continues_previous);
  EXPECT_TRUE(documents[1].continues_previous);
  EXPECT_EQ(documents[1].line, 3);

  std::string euros;
  for (int i = 0; i < 20; ++i) {
    euros += "\u20AC";
  }
  write_text_file(folder / "b.txt", euros + "\n\nnext");
  const auto parts = read_all({.path = folder / "b.txt"},
                              {.split = DocumentSplit::kBlankLine, .max_document_bytes = 16});
  std::string joined;
  for (const Document& part : parts) {
    EXPECT_EQ(part.text.size() % (part.text == "next" ? 1 : 3), 0U);
    EXPECT_LE(part.text.size(), 16U);
    joined += part.text;
  }
  EXPECT_EQ(joined, euros + "next");
  EXPECT_FALSE(parts.front().continues_previous);
  EXPECT_TRUE(parts[1].continues_previous);
  EXPECT_FALSE(parts.back().continues_previous);
  EXPECT_EQ(parts.back().line, 3);

  write_text_file(folder / "c.jsonl", "{\"text\": \"" + euros + "\"}\n{\"text\": \"x\"}\n");
  const auto json_parts = read_all({.path = folder / "c.jsonl"}, {.max_document_bytes = 16});
  ASSERT_EQ(json_parts.size(), 5U);
  EXPECT_EQ(json_parts[0].text + json_parts[1].text + json_parts[2].text + json_parts[3].text,
            euros);
  EXPECT_TRUE(json_parts[3].continues_previous);
  EXPECT_FALSE(json_parts[4].continues_previous);
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder / "a.txt"}, {.max_document_bytes = 3}),
                      ErrorKind::kUsage, "max_document_bytes is 3");
}

TEST(Corpus, ReadsFieldsOfJsonLines) {
  const test::TempDir folder;
  write_text_file(folder / "a.jsonl",
                  "{\"text\": \"one\", \"meta\": {\"title\": \"T\"}, \"a.b\": \"dotted\"}\n\n"
                  "{\"text\": \"\", \"meta\": {\"title\": \"U\"}, \"a.b\": \"x\"}\n"
                  "{\"text\": \"\\u00e9\\n\", \"meta\": {\"title\": \"\"}, \"a.b\": \"y\"}");
  const auto file = folder / "a.jsonl";
  const auto documents = read_all({.path = file});
  EXPECT_EQ(texts_of(documents), (Texts{"one", "\u00E9\n"}));
  EXPECT_EQ(documents[1].line, 4);
  EXPECT_EQ(texts_of(read_all({.path = file, .field = "meta.title"})), (Texts{"T", "U"}));
  EXPECT_EQ(texts_of(read_all({.path = file, .field = "a.b"})), (Texts{"dotted", "x", "y"}));
  EXPECT_EQ(texts_of(read_all({.path = file, .field = "meta.title+a.b"})),
            (Texts{"T\ndotted", "U\nx", "y"}));
}

TEST(Corpus, NamesFileAndLineOfABadOne) {
  const test::TempDir folder;
  const auto message = [&](const std::string& line) {
    write_text_file(folder / "a.jsonl", "{\"text\": \"fine\"}\n" + line + "\n");
    CorpusReader reader({.path = folder / "a.jsonl"});
    Document document;
    EXPECT_TRUE(reader.next(document));
    try {
      (void)reader.next(document);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string place = (folder / "a.jsonl").string() + ":2: ";
  EXPECT_THAT(message("{\"text\": "), ::testing::StartsWith(place.substr(0, place.size() - 2)));
  EXPECT_THAT(message("{\"text\": \"\xFF\"}"), ::testing::HasSubstr("a.jsonl:2"));
  EXPECT_EQ(message("{\"body\": \"x\", \"id\": 3}"),
            place + "no field \"text\"; the line has body, id");
  EXPECT_EQ(message("[1]"), place + "no field \"text\"; the line has 0");
  EXPECT_EQ(message("{\"text\": 3}"), place + "field \"text\" is number, expected a string");
}

TEST(Corpus, ReadsZstandardStreamsAlsoSeveralInOneFile) {
  const test::TempDir folder;
  std::string lines;
  Texts expected;
  for (int i = 0; i < 20'000; ++i) {
    expected.push_back("document number " + std::to_string(i) + " of a longer list");
    lines += "{\"text\": \"" + expected.back() + "\"}\n";
  }
  const std::size_t middle = lines.size() / 2;
  const std::string packed = compressed(lines.substr(0, middle)) + compressed(lines.substr(middle));
  write_text_file(folder / "a.jsonl.zst", packed);
  EXPECT_EQ(texts_of(read_all({.path = folder / "a.jsonl.zst"})), expected);
  write_text_file(folder / "b.txt.zst", compressed("plain"));
  EXPECT_EQ(texts_of(read_all({.path = folder / "b.txt.zst"})), (Texts{"plain"}));
  write_text_file(folder / "C.TXT.ZST", compressed("plain"));
  EXPECT_EQ(texts_of(read_all({.path = folder / "C.TXT.ZST"})), (Texts{"plain"}));

  write_text_file(folder / "a.jsonl.zst", packed.substr(0, packed.size() - 5));
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder / "a.jsonl.zst"}), ErrorKind::kFormat,
                      "a.jsonl.zst: the zstd stream ends early");
  write_text_file(folder / "a.jsonl.zst", "not zstd");
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder / "a.jsonl.zst"}), ErrorKind::kFormat,
                      "damaged zstd stream");
}

TEST(Corpus, TakesFoldersInSortedOrder) {
  const test::TempDir folder;
  make_folder(folder / "b");
  write_text_file(folder / "c.txt", "3");
  write_text_file(folder / "b/x.jsonl", "{\"text\": \"2\"}");
  write_text_file(folder / "a.txt", "1");
  write_text_file(folder / "readme.md", "not read");
  EXPECT_EQ(texts_of(read_all({.path = folder.path()})), (Texts{"1", "2", "3"}));
}

TEST(Corpus, RefusesWhatItCannotRead) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder / "none.txt"}), ErrorKind::kIo,
                      "no such file");
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder.path()}), ErrorKind::kIo,
                      "holds no .txt or .jsonl file");
  write_text_file(folder / "a.parquet", "x");
  EXPECT_PUZZLE_ERROR((void)read_all({.path = folder / "a.parquet"}), ErrorKind::kUsage,
                      "expected a name ending in .txt");
}

TEST(Corpus, SaysOnceThatAFileIsInAnotherEncoding) {
  const test::TempDir folder;
  write_text_file(folder / "a.txt", "caf\xe9 au lait\n\nna\xefve\n");
  testing::internal::CaptureStderr();
  const auto documents = read_all({.path = folder / "a.txt"}, {.split = DocumentSplit::kBlankLine});
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(documents.size(), 2U);
  EXPECT_NE(log.find("a.txt: a document is not UTF-8 (0xe9 at byte 3 of it)"), std::string::npos);
  EXPECT_EQ(log.find("0xef"), std::string::npos);
}

TEST(Corpus, ParsesSources) {
  const CorpusSource plain = parse_corpus_source("data/x.txt");
  EXPECT_EQ(plain.path, "data/x.txt");
  EXPECT_EQ(plain.field, "text");
  EXPECT_EQ(plain.weight, 1.0);
  const CorpusSource full = parse_corpus_source("x.jsonl:question+answer@0.25");
  EXPECT_EQ(full.path, "x.jsonl");
  EXPECT_EQ(full.field, "question+answer");
  EXPECT_EQ(full.weight, 0.25);
  EXPECT_EQ(parse_corpus_source("x@3").weight, 3.0);
  EXPECT_EQ(parse_corpus_source("x@3").path, "x");

  const test::TempDir folder;
  write_text_file(folder / "odd:name@2.txt", "x");
  const CorpusSource odd = parse_corpus_source((folder / "odd:name@2.txt").string());
  EXPECT_EQ(odd.path, folder / "odd:name@2.txt");
  EXPECT_EQ(odd.weight, 1.0);

  EXPECT_PUZZLE_ERROR((void)parse_corpus_source(""), ErrorKind::kUsage, "is empty");
  EXPECT_PUZZLE_ERROR((void)parse_corpus_source("x:a b"), ErrorKind::kUsage,
                      "\"a b\" is not a field name");
  EXPECT_PUZZLE_ERROR((void)parse_corpus_source("x@0"), ErrorKind::kUsage, "the weight is \"0\"");
  EXPECT_PUZZLE_ERROR((void)parse_corpus_source("x@much"), ErrorKind::kUsage,
                      "the weight is \"much\"");
  EXPECT_PUZZLE_ERROR((void)parse_corpus_source(":text"), ErrorKind::kUsage, "the path is empty");
}

TEST(Corpus, KeyFollowsContentAndRulesNotPlaces) {
  const test::TempDir folder;
  write_text_file(folder / "a.txt", "one\n\ntwo");
  write_text_file(folder / "b.txt", "one\n\ntwo");
  write_text_file(folder / "c.jsonl", "{\"text\": \"x\", \"body\": \"y\"}");
  const auto key = [](const CorpusSource& source, const CorpusOptions& options = {}) {
    return corpus_key(std::vector<CorpusSource>{source}, options);
  };
  const std::string first = key({.path = folder / "a.txt"});
  EXPECT_EQ(key({.path = folder / "b.txt"}), first);
  EXPECT_NE(key({.path = folder / "a.txt"}, {.split = DocumentSplit::kBlankLine}), first);
  EXPECT_NE(key({.path = folder / "c.jsonl"}), key({.path = folder / "c.jsonl", .field = "body"}));
  write_text_file(folder / "b.txt", "one\n\ntwo!");
  EXPECT_NE(key({.path = folder / "b.txt"}), first);
}

}  // namespace
}  // namespace puzzle
