#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/cores.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/token_file.h"
#include "puzzle/data/token_file_format.h"
#include "puzzle/text/corpus.h"
#include "puzzle/text/tokenizer.h"

namespace puzzle {
namespace {

constexpr std::size_t kBatchBytes = 8 << 20;  // of text, tokenised by all threads together
constexpr std::size_t kBatchDocuments = 4096;
constexpr std::int64_t kBytesPerUnit = 1024;  // progress counts KiB

// The options, checked and resolved against the tokenizer.
struct TokenizePlan {
  std::vector<std::string> names;
  std::vector<CorpusSource> sources;
  CorpusOptions corpus;
  std::optional<std::int32_t> start_token;
  std::optional<std::int32_t> end_token;
  bool parse_special = false;
};

std::int32_t named_token(const char* option, const std::string& text, const Tokenizer& tokenizer) {
  const std::optional<std::int32_t> id = tokenizer.find_token(text);
  if (!id) {
    fail(ErrorKind::kUsage,
         "data.{}: '{}' is no token of the vocabulary, expected auto, none or a token's spelling",
         option, text);
  }
  return *id;
}

std::optional<std::int32_t> document_start_token(const DataOptions& options,
                                                 const Tokenizer& tokenizer) {
  const std::string& text = options.document_start;
  if (text == "none") {
    return std::nullopt;
  }
  if (text == "auto") {
    return tokenizer.adds_bos() ? tokenizer.bos() : std::nullopt;
  }
  if (text == "bos") {
    if (!tokenizer.bos()) {
      fail(ErrorKind::kUsage, "data.document_start: bos, but the tokenizer has none");
    }
    return tokenizer.bos();
  }
  return named_token("document_start", text, tokenizer);
}

// `auto` prefers the token that pretraining puts between documents: an instruction-tuned model's
// EOS is the end of a turn.
std::optional<std::int32_t> document_end_token(const DataOptions& options,
                                               const Tokenizer& tokenizer) {
  const std::string& text = options.document_end;
  if (text == "none") {
    return std::nullopt;
  }
  if (text == "auto") {
    for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>"}) {
      const std::optional<std::int32_t> id = tokenizer.find_token(name);
      if (id && tokenizer.is_special(*id)) {
        return id;
      }
    }
    return tokenizer.eos();
  }
  if (text == "eos") {
    if (!tokenizer.eos()) {
      fail(ErrorKind::kUsage, "data.document_end: eos, but the tokenizer has none");
    }
    return tokenizer.eos();
  }
  return named_token("document_end", text, tokenizer);
}

TokenizePlan make_tokenize_plan(const DataOptions& options, const Tokenizer& tokenizer) {
  if (options.sources.empty()) {
    fail(ErrorKind::kUsage, "data.sources: found none, expected at least one corpus");
  }
  TokenizePlan plan;
  std::map<std::string, std::string> seen;
  for (const std::string& text : options.sources) {
    CorpusSource source = parse_corpus_source(text);
    for (const std::filesystem::path& file : corpus_files(source)) {
      const std::string what = std::filesystem::canonical(file).string() + ":" + source.field;
      const auto [other, is_new] = seen.emplace(what, text);
      if (!is_new) {
        fail(ErrorKind::kUsage,
             "data.sources: {} is in {} and in {}, so the same text could be in two parts; name it "
             "once",
             file.string(), other->second, text);
      }
    }
    plan.names.push_back(text);
    plan.sources.push_back(std::move(source));
  }
  plan.corpus.split = options.split == "blank_line" ? DocumentSplit::kBlankLine
                      : options.split == "marker"   ? DocumentSplit::kMarker
                                                    : DocumentSplit::kFile;
  plan.corpus.marker = options.marker;
  plan.start_token = document_start_token(options, tokenizer);
  plan.end_token = document_end_token(options, tokenizer);
  plan.parse_special = options.parse_special;
  return plan;
}

std::string plan_key(const TokenizePlan& plan, const Tokenizer& tokenizer) {
  KeyBuilder key;
  key.add("stage", "tokens").add("version", kTokenFileVersion);
  key.add("corpus", corpus_key(plan.sources, plan.corpus));
  key.add("tokenizer", tokenizer.content_key());
  key.add("document_start", std::int64_t{plan.start_token.value_or(-1)});
  key.add("document_end", std::int64_t{plan.end_token.value_or(-1)});
  key.add("parse_special", plan.parse_special);
  return key.key();
}

// Reads text in batches of documents and turns each batch into tokens on all threads. The result is
// in the order of the documents, whatever thread made it.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& path, const TokenizePlan& plan,
                  const Tokenizer& tokenizer);
  void write(const std::string& key);

 private:
  void write_source(std::size_t index);
  void write_batch(std::vector<Document>& documents, TokenSource& source);
  void encode_batch(const std::vector<Document>& documents);
  void append(std::span<const std::int32_t> tokens);
  void end_document();
  void count_progress(const Document& document);
  void finish_file_progress();
  void write_padding(std::uint64_t to_size);
  void write_footer(const std::string& key);

  const TokenizePlan& plan_;
  const Tokenizer& tokenizer_;
  AtomicFile file_;
  Progress progress_;
  std::vector<std::vector<std::int32_t>> encoded_;
  std::vector<std::int64_t> offsets_;
  std::vector<TokenSource> sources_;
  std::int64_t num_tokens_ = 0;
  bool is_open_ = false;  // a document whose end has not been seen

  std::filesystem::path current_file_;
  std::int64_t current_file_bytes_ = 0;  // of its size on disk, not yet counted as progress
};

std::int64_t plan_units(const TokenizePlan& plan) {
  std::int64_t units = 0;
  for (const CorpusSource& source : plan.sources) {
    for (const std::filesystem::path& path : corpus_files(source)) {
      units += static_cast<std::int64_t>(std::filesystem::file_size(path)) / kBytesPerUnit;
    }
  }
  return units;
}

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, const TokenizePlan& plan,
                                 const Tokenizer& tokenizer)
    : plan_(plan),
      tokenizer_(tokenizer),
      file_(path),
      progress_("tokenise", plan_units(plan), "KiB") {}

void TokenFileWriter::write(const std::string& key) {
  file_.write(kTokenFileMagic);
  write_padding(kTokenFileHeaderBytes);
  for (std::size_t i = 0; i < plan_.sources.size(); ++i) {
    write_source(i);
  }
  if (num_tokens_ == 0) {
    fail(ErrorKind::kUsage, "data.sources: no text in {}", join(plan_.names, ", "));
  }
  write_padding(token_file_offsets_at(static_cast<std::uint64_t>(num_tokens_)));
  offsets_.push_back(num_tokens_);
  file_.write(std::as_bytes(std::span(offsets_)));
  write_footer(key);
  file_.commit();
}

void TokenFileWriter::write_source(std::size_t index) {
  TokenSource source;
  source.name = plan_.names[index];
  source.first_token = num_tokens_;
  const std::int64_t documents_before = std::ssize(offsets_);
  CorpusReader reader(plan_.sources[index], plan_.corpus);
  std::vector<Document> batch;
  std::size_t batch_bytes = 0;
  Document document;
  while (reader.next(document)) {
    batch_bytes += document.text.size();
    batch.push_back(std::move(document));
    document = Document{};
    if (batch_bytes >= kBatchBytes || batch.size() >= kBatchDocuments) {
      write_batch(batch, source);
      batch_bytes = 0;
    }
  }
  write_batch(batch, source);
  end_document();
  finish_file_progress();
  source.num_tokens = num_tokens_ - source.first_token;
  source.num_documents = std::ssize(offsets_) - documents_before;
  sources_.push_back(std::move(source));
}

void TokenFileWriter::write_batch(std::vector<Document>& documents, TokenSource& source) {
  encode_batch(documents);
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const Document& document = documents[i];
    if (!document.continues_previous) {
      end_document();
    }
    if (!is_open_ && !encoded_[i].empty()) {
      is_open_ = true;
      offsets_.push_back(num_tokens_);
      if (plan_.start_token) {
        append({&*plan_.start_token, 1});
      }
    }
    append(encoded_[i]);
    source.num_text_bytes += static_cast<std::int64_t>(document.text.size());
    count_progress(document);
  }
  documents.clear();
}

void TokenFileWriter::encode_batch(const std::vector<Document>& documents) {
  encoded_.assign(documents.size(), {});
  std::atomic<std::size_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < documents.size(); i = next++) {
        encoded_[i] = tokenizer_.encode(documents[i].text, {.parse_special = plan_.parse_special});
      }
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      error = std::current_exception();
    }
  };
  const std::size_t num_threads =
      std::min(static_cast<std::size_t>(usable_cores()), documents.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < num_threads; ++i) {
    threads.emplace_back(work);
  }
  work();
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (error) {
    std::rethrow_exception(error);
  }
}

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  file_.write(std::as_bytes(tokens));
  num_tokens_ += std::ssize(tokens);
}

void TokenFileWriter::end_document() {
  if (is_open_ && plan_.end_token) {
    append({&*plan_.end_token, 1});
  }
  is_open_ = false;
}

// Progress goes by size on disk, which is known beforehand; a compressed file counts until its own
// size is reached and the rest of a file when the next one starts.
void TokenFileWriter::count_progress(const Document& document) {
  if (document.file != current_file_) {
    finish_file_progress();
    current_file_ = document.file;
    current_file_bytes_ = static_cast<std::int64_t>(std::filesystem::file_size(current_file_)) /
                          kBytesPerUnit * kBytesPerUnit;
  }
  const std::int64_t before = current_file_bytes_ / kBytesPerUnit;
  current_file_bytes_ = std::max<std::int64_t>(
      0, current_file_bytes_ - static_cast<std::int64_t>(document.text.size()));
  progress_.advance(before - current_file_bytes_ / kBytesPerUnit);
}

void TokenFileWriter::finish_file_progress() {
  progress_.advance(current_file_bytes_ / kBytesPerUnit);
  current_file_bytes_ = 0;
  current_file_.clear();
}

void TokenFileWriter::write_padding(std::uint64_t to_size) {
  constexpr std::array<std::byte, kTokenFileHeaderBytes> kZeros{};
  file_.write(std::span(kZeros).first(to_size - file_.size()));
}

void TokenFileWriter::write_footer(const std::string& key) {
  Json sources = Json::array();
  for (const TokenSource& source : sources_) {
    sources.push_back({{"name", source.name},
                       {"first_token", source.first_token},
                       {"num_tokens", source.num_tokens},
                       {"num_documents", source.num_documents},
                       {"num_text_bytes", source.num_text_bytes}});
  }
  const Json footer = {{"format", "puzzle-tokens"},
                       {"version", kTokenFileVersion},
                       {"key", key},
                       {"num_tokens", num_tokens_},
                       {"num_documents", std::ssize(offsets_) - 1},
                       {"vocab_size", tokenizer_.vocab_size()},
                       {"document_start", plan_.start_token.value_or(-1)},
                       {"document_end", plan_.end_token.value_or(-1)},
                       {"tokenizer_key", tokenizer_.content_key()},
                       {"sources", sources}};
  const std::string text = footer.dump();
  file_.write(text);
  const std::uint64_t size = text.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(kTokenFileEndMagic);
}

// The file at `path` if it is whole and has this key.
std::shared_ptr<const TokenFile> find_token_file(const std::filesystem::path& path,
                                                 const std::string& key) {
  if (!std::filesystem::exists(path)) {
    return nullptr;
  }
  try {
    auto file = std::make_shared<const TokenFile>(path);
    if (file->key() == key) {
      return file;
    }
    log_warning("{}: made from something else, it is made again", path.string());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFormat) {
      throw;
    }
    log_warning("{}", error.what());
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<const TokenFile> load_token_file(const std::filesystem::path& folder,
                                                 const DataOptions& options,
                                                 const Tokenizer& tokenizer) {
  const TokenizePlan plan = make_tokenize_plan(options, tokenizer);
  const std::string key = plan_key(plan, tokenizer);
  const std::filesystem::path path = folder / fmt::format("tokens-{}.bin", key.substr(0, 16));
  if (auto found = find_token_file(path, key)) {
    return found;
  }
  make_folder(folder);
  TokenFileWriter(path, plan, tokenizer).write(key);
  auto file = std::make_shared<const TokenFile>(path);
  log_info("data: {} tokens in {} documents of {}",
           human_count(static_cast<double>(file->tokens().size())), file->num_documents(),
           join(plan.names, ", "));
  return file;
}

}  // namespace puzzle
