// A corpus as tokens on disk: made once, mapped into memory when used.
//
// File, little-endian, written front to back because the counts are known last:
//   0    "PUZTOK01", then zeros up to byte 64
//   64   int32 tokens of all documents, in the order of the sources; zeros up to a multiple of 8
//   …    int64 document offsets, num_documents + 1 of them, in tokens
//   …    JSON: key, counts, sources, what separates documents
//   end  uint64 size of the JSON, "PUZTOKEN"
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "puzzle/base/file.h"
#include "puzzle/data/data_options.h"

namespace puzzle {

class Tokenizer;

// One corpus of the file; its documents follow each other.
struct TokenSource {
  std::string name;  // as the recipe gave it when the file was made
  std::int64_t first_token = 0;
  std::int64_t num_tokens = 0;
  std::int64_t num_documents = 0;
  std::int64_t num_text_bytes = 0;  // of the documents, without separators
};

// Immutable; every member may be called from several threads.
class TokenFile {
 public:
  // Throws Error(kIo), or Error(kFormat) for anything that is not a whole token file.
  explicit TokenFile(const std::filesystem::path& path);

  [[nodiscard]] std::span<const std::int32_t> tokens() const { return tokens_; }
  // Token index where each document starts, and at the end the number of tokens. No document is
  // empty.
  [[nodiscard]] std::span<const std::int64_t> document_offsets() const { return offsets_; }
  [[nodiscard]] std::int64_t num_documents() const { return std::ssize(offsets_) - 1; }
  // The document that holds token `index`.
  [[nodiscard]] std::int64_t document_of(std::int64_t index) const;
  [[nodiscard]] const std::vector<TokenSource>& sources() const { return sources_; }
  [[nodiscard]] std::int32_t vocab_size() const { return vocab_size_; }
  [[nodiscard]] const std::string& key() const { return key_; }
  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::span<const std::int32_t> tokens_;
  std::span<const std::int64_t> offsets_;
  std::vector<TokenSource> sources_;
  std::int32_t vocab_size_ = 0;
  std::string key_;
};

// The token file of these options in `folder`, made if it is not there: tokens-<key>.bin, keyed by
// the corpora's bytes, the tokenizer, and how documents are made and separated. Several threads,
// the result does not depend on their number. With several ranks let one make it first. Throws
// Error(kUsage) for options that name no source, the same source twice or a token that the
// vocabulary lacks, and for corpora without any text; otherwise as CorpusReader.
[[nodiscard]] std::shared_ptr<const TokenFile> load_token_file(const std::filesystem::path& folder,
                                                               const DataOptions& options,
                                                               const Tokenizer& tokenizer);

}  // namespace puzzle
