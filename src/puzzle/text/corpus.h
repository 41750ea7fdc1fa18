// Documents from text files: .txt, .jsonl (a named field), either also as .zst, or a folder of
// them.
//
// Memory is bounded: files are streamed, and a document longer than `max_document_bytes` arrives in
// parts. Documents are handed on as they are in the file; nothing is normalised.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

struct CorpusSource {
  std::filesystem::path path;  // a file, or a folder whose files are taken in sorted order
  std::string field = "text";  // .jsonl: member that holds the text; "a.b" for a nested one,
                               // "question+answer" joins several with a newline
  double weight = 1.0;         // share of this source in a mixture, relative to the others; > 0
};

// "path", "path:field", "path@weight", "path:field@weight"; a text that names an existing file or
// folder as it stands is taken whole. Throws Error(kUsage).
[[nodiscard]] CorpusSource parse_corpus_source(std::string_view text);

enum class DocumentSplit {
  kFile,       // a .txt file is one document
  kBlankLine,  // one or more empty lines (or only spaces) end a document
  kMarker,     // a line equal to `marker` ends a document and belongs to none
};

struct CorpusOptions {
  DocumentSplit split = DocumentSplit::kFile;  // .txt only
  std::string marker = "<|endoftext|>";        // for kMarker
  std::int64_t max_document_bytes = 16 << 20;  // longer ones are cut at a line or character end
};

struct Document {
  std::string text;  // never empty
  std::filesystem::path file;
  std::int64_t line = 0;            // 1-based line of `file` where it starts
  bool continues_previous = false;  // a further part of the document before
};

// Reads the documents of one source one by one.
class CorpusReader {
 public:
  // Throws Error(kIo) if the path is absent or a folder holds no corpus file, Error(kUsage) for a
  // file whose name says neither .txt nor .jsonl.
  explicit CorpusReader(CorpusSource source, CorpusOptions options = {});
  ~CorpusReader();
  CorpusReader(CorpusReader&&) noexcept;
  CorpusReader& operator=(CorpusReader&&) noexcept;

  // Fills `document` and returns true, or returns false at the end. Empty documents are skipped.
  // Throws Error(kFormat) with file:line for a line that is not JSON or lacks the field, and for a
  // damaged .zst; Error(kIo) if reading fails.
  [[nodiscard]] bool next(Document& document);

 private:
  class State;
  std::unique_ptr<State> state_;
};

// The files of a source in reading order. Throws as CorpusReader.
[[nodiscard]] std::vector<std::filesystem::path> corpus_files(const CorpusSource& source);

// Key over the files' bytes and everything that decides how they become documents; the place where
// they lie does not matter. Reads every file once.
[[nodiscard]] std::string corpus_key(std::span<const CorpusSource> sources,
                                     const CorpusOptions& options);

}  // namespace puzzle
