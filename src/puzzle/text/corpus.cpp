#include "puzzle/text/corpus.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/text/line_reader.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

constexpr std::size_t kMaxJsonLineBytes = std::size_t{256} << 20;

enum class CorpusFormat { kText, kJsonLines };

std::optional<CorpusFormat> format_of(const std::filesystem::path& path) {
  std::string name = lower(path.filename().string());
  if (name.ends_with(".zst")) {
    name.resize(name.size() - 4);
  }
  if (name.ends_with(".txt")) {
    return CorpusFormat::kText;
  }
  if (name.ends_with(".jsonl") || name.ends_with(".ndjson")) {
    return CorpusFormat::kJsonLines;
  }
  return std::nullopt;
}

bool is_field(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == '+';
  });
}

// The string at "a.b"; a member that is literally called "a.b" goes first.
const std::string& field_text(const Json& object, const std::string& field,
                              const std::string& place) {
  const Json* value = &object;
  std::string rest = field;
  while (!rest.empty()) {
    std::string name = rest;
    if (value->is_object() && !value->contains(name)) {
      name = rest.substr(0, rest.find('.'));
    }
    if (!value->is_object() || !value->contains(name)) {
      std::vector<std::string> known;
      for (const auto& [key, member] : (value->is_object() ? *value : object).items()) {
        known.push_back(key);
      }
      fail(ErrorKind::kFormat, "{}: no field \"{}\"; the line has {}", place, field,
           known.empty() ? "none" : join(known, ", "));
    }
    value = &(*value)[name];
    rest.erase(0, std::min(name.size() + 1, rest.size()));
  }
  if (!value->is_string()) {
    fail(ErrorKind::kFormat, "{}: field \"{}\" is {}, expected a string", place, field,
         value->type_name());
  }
  return value->get_ref<const std::string&>();
}

// Where to cut a text of more than `max_bytes`: after the last newline, else between characters.
std::size_t cut_position(std::string_view text, std::size_t max_bytes) {
  const std::string_view head = text.substr(0, max_bytes);
  const std::size_t newline = head.rfind('\n');
  if (newline != std::string_view::npos) {
    return newline + 1;
  }
  const std::size_t unfinished = unfinished_utf8_suffix(head);
  return unfinished < head.size() ? head.size() - unfinished : head.size();
}

}  // namespace

CorpusSource parse_corpus_source(std::string_view text) {
  CorpusSource source;
  if (text.empty()) {
    fail(ErrorKind::kUsage, "a corpus source is empty; expected path, path:field or path@weight");
  }
  if (std::filesystem::exists(text)) {
    source.path = text;
    return source;
  }
  const std::string whole(text);
  const std::size_t at = text.rfind('@');
  if (at != std::string_view::npos) {
    const std::optional<double> weight = parse_number<double>(text.substr(at + 1));
    if (!weight || !(*weight > 0.0 && *weight < 1e9)) {
      fail(ErrorKind::kUsage, "corpus source {}: the weight is \"{}\", expected a number above 0",
           whole, text.substr(at + 1));
    }
    source.weight = *weight;
    text = text.substr(0, at);
  }
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && !std::filesystem::exists(text)) {
    if (!is_field(text.substr(colon + 1))) {
      fail(ErrorKind::kUsage, "corpus source {}: \"{}\" is not a field name", whole,
           text.substr(colon + 1));
    }
    source.field = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  if (text.empty()) {
    fail(ErrorKind::kUsage, "corpus source {}: the path is empty", whole);
  }
  source.path = text;
  return source;
}

std::vector<std::filesystem::path> corpus_files(const CorpusSource& source) {
  if (!std::filesystem::exists(source.path)) {
    fail(ErrorKind::kIo, "{}: no such file or folder", source.path.string());
  }
  if (!std::filesystem::is_directory(source.path)) {
    if (!format_of(source.path)) {
      fail(ErrorKind::kUsage, "{}: expected a name ending in .txt, .jsonl, .txt.zst or .jsonl.zst",
           source.path.string());
    }
    return {source.path};
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source.path)) {
    if (entry.is_regular_file() && format_of(entry.path())) {
      files.push_back(entry.path());
    }
  }
  if (files.empty()) {
    fail(ErrorKind::kIo, "{}: the folder holds no .txt or .jsonl file (also .zst)",
         source.path.string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string corpus_key(std::span<const CorpusSource> sources, const CorpusOptions& options) {
  KeyBuilder key;
  key.add("max_document_bytes", options.max_document_bytes);
  for (const CorpusSource& source : sources) {
    key.add("source", "");
    for (const std::filesystem::path& file : corpus_files(source)) {
      if (format_of(file) == CorpusFormat::kJsonLines) {
        key.add("field", source.field);
      } else {
        key.add("split", static_cast<int>(options.split));
        key.add("marker", options.split == DocumentSplit::kMarker ? options.marker : "");
      }
      key.add("content", hash_file(file));
    }
  }
  return key.key();
}

class CorpusReader::State {
 public:
  State(CorpusSource source, CorpusOptions options)
      : source_(std::move(source)),
        options_(std::move(options)),
        max_bytes_(static_cast<std::size_t>(options_.max_document_bytes)),
        fields_(split(source_.field, '+')),
        files_(corpus_files(source_)) {
    if (options_.max_document_bytes < 16) {
      fail(ErrorKind::kUsage, "max_document_bytes is {}, expected at least 16",
           options_.max_document_bytes);
    }
  }

  bool next(Document& document) {
    while (reader_ || open_next_file()) {
      const bool found =
          format_of(file()) == CorpusFormat::kJsonLines ? next_json(document) : next_text(document);
      if (found) {
        document.file = file();
        warn_if_no_text(document.text);
        return true;
      }
      reader_.reset();
    }
    return false;
  }

 private:
  [[nodiscard]] const std::filesystem::path& file() const { return files_[next_file_ - 1]; }

  // Once for a source: bytes of another encoding, or of no text at all, have tokens as well.
  void warn_if_no_text(std::string_view text) {
    if (has_warned_) {
      return;
    }
    if (const std::size_t valid = valid_utf8_prefix(text); valid < text.size()) {
      log_warning(
          "{}: a document is not UTF-8 (0x{:02x} at byte {} of it); is it in another encoding?",
          file().string(), static_cast<unsigned char>(text[valid]), valid);
      has_warned_ = true;
    }
  }

  bool open_next_file() {
    if (next_file_ == files_.size()) {
      return false;
    }
    reader_.emplace(files_[next_file_++]);
    continues_ = false;
    held_.clear();
    return true;
  }

  bool next_json(Document& document) {
    while (held_.empty()) {
      if (!reader_->next(line_, kMaxJsonLineBytes)) {
        return false;
      }
      const std::string place = fmt::format("{}:{}", file().string(), reader_->line_number());
      if (line_.size() >= kMaxJsonLineBytes && line_.back() != '\n') {
        fail(ErrorKind::kFormat, "{}: a line of more than {}", place,
             human_bytes(static_cast<double>(kMaxJsonLineBytes)));
      }
      if (!trim(line_).empty()) {
        held_ = json_text(place);
        held_line_ = reader_->line_number();
        continues_ = false;
      }
    }
    give_part(held_, held_line_, document);
    continues_ = !held_.empty();
    return true;
  }

  [[nodiscard]] std::string json_text(const std::string& place) const {
    const Json object = parse_json(line_, place);
    std::string text;
    for (const std::string& field : fields_) {
      text += text.empty() ? "" : "\n";
      text += field_text(object, field, place);
    }
    return text;
  }

  // Moves the first part of `text`, as much as a document may hold, into the document.
  void give_part(std::string& text, std::int64_t line, Document& document) const {
    const std::size_t bytes =
        text.size() > max_bytes_ ? cut_position(text, max_bytes_) : text.size();
    document.text.assign(text, 0, bytes);
    document.line = line;
    document.continues_previous = continues_;
    text.erase(0, bytes);
  }

  [[nodiscard]] bool ends_document(std::string_view line) const {
    if (line.ends_with('\n')) {
      line.remove_suffix(1);
    }
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    switch (options_.split) {
      case DocumentSplit::kFile:
        return false;
      case DocumentSplit::kBlankLine:
        return trim(line).empty();
      case DocumentSplit::kMarker:
        return line == options_.marker;
    }
    return false;
  }

  // Lines are gathered until the document ends or would become too long; the line that did not fit
  // waits in held_.
  bool next_text(Document& document) {
    document.text.swap(held_);
    held_.clear();
    document.line = held_line_;
    document.continues_previous = continues_;
    while (reader_->next(line_, max_bytes_)) {
      if (ends_document(line_)) {
        continues_ = false;
        if (!document.text.empty()) {
          trim_newline(document.text);
          return true;
        }
        document.continues_previous = false;
        continue;
      }
      if (!document.text.empty() && document.text.size() + line_.size() > max_bytes_) {
        held_ = line_;
        held_line_ = reader_->line_number();
        continues_ = true;
        return true;
      }
      if (document.text.empty()) {
        document.line = reader_->line_number();
      }
      document.text += line_;
    }
    if (options_.split != DocumentSplit::kFile) {
      trim_newline(document.text);
    }
    return !document.text.empty();
  }

  static void trim_newline(std::string& text) {
    while (text.size() > 1 && (text.back() == '\n' || text.back() == '\r')) {
      text.pop_back();
    }
  }

  CorpusSource source_;
  CorpusOptions options_;
  std::size_t max_bytes_;
  std::vector<std::string> fields_;
  std::vector<std::filesystem::path> files_;
  std::size_t next_file_ = 0;
  std::optional<LineReader> reader_;
  std::string line_;
  std::string held_;  // read, but not yet given out
  std::int64_t held_line_ = 0;
  bool has_warned_ = false;
  bool continues_ = false;  // what is held goes on with the document before
};

CorpusReader::CorpusReader(CorpusSource source, CorpusOptions options)
    : state_(std::make_unique<State>(std::move(source), std::move(options))) {}
CorpusReader::~CorpusReader() = default;
CorpusReader::CorpusReader(CorpusReader&&) noexcept = default;
CorpusReader& CorpusReader::operator=(CorpusReader&&) noexcept = default;

bool CorpusReader::next(Document& document) { return state_->next(document); }

}  // namespace puzzle
