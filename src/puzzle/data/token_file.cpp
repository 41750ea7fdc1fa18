#include "puzzle/data/token_file.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/data/token_file_format.h"

namespace puzzle {
namespace {

// Sizes come from the file: every sum and product below is of numbers that were checked first.
class TokenFileReader {
 public:
  explicit TokenFileReader(const MappedFile& file)
      : bytes_(file.bytes()), place_(file.path().string()) {}

  [[nodiscard]] const std::string& place() const { return place_; }
  [[nodiscard]] Json read_footer() const;
  template <class T>
  [[nodiscard]] std::span<const T> array(std::uint64_t offset, std::int64_t count,
                                         const char* what) const;

  [[noreturn]] void fail_file(const std::string& found) const {
    fail(ErrorKind::kFormat, "{}: {}, expected a whole token file; the run makes it again", place_,
         found);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string place_;
};

Json TokenFileReader::read_footer() const {
  const std::uint64_t size = bytes_.size();
  const auto has_magic = [&](std::uint64_t offset, std::string_view magic) {
    return std::memcmp(bytes_.data() + offset, magic.data(), magic.size()) == 0;
  };
  if (size < kTokenFileHeaderBytes + kTokenFileTrailerBytes || !has_magic(0, kTokenFileMagic)) {
    fail_file("no token file");
  }
  if (!has_magic(size - kTokenFileEndMagic.size(), kTokenFileEndMagic)) {
    fail_file("the end is missing");
  }
  std::uint64_t json_bytes = 0;
  std::memcpy(&json_bytes, bytes_.data() + size - kTokenFileTrailerBytes, sizeof json_bytes);
  if (json_bytes > size - kTokenFileHeaderBytes - kTokenFileTrailerBytes) {
    fail_file(fmt::format("a description of {} bytes", json_bytes));
  }
  const auto* text =
      reinterpret_cast<const char*>(bytes_.data()) + size - kTokenFileTrailerBytes - json_bytes;
  return parse_json({text, json_bytes}, place_);
}

template <class T>
std::span<const T> TokenFileReader::array(std::uint64_t offset, std::int64_t count,
                                          const char* what) const {
  if (count < 0 || offset > bytes_.size() ||
      static_cast<std::uint64_t>(count) > (bytes_.size() - offset) / sizeof(T)) {
    fail_file(fmt::format("{} {} in {} bytes", count, what, bytes_.size()));
  }
  return {reinterpret_cast<const T*>(bytes_.data() + offset), static_cast<std::size_t>(count)};
}

std::vector<TokenSource> read_token_sources(const Json& footer, const TokenFileReader& reader,
                                            std::int64_t num_tokens) {
  const auto list = footer.find("sources");
  if (list == footer.end() || !list->is_array()) {
    reader.fail_file("no list of sources");
  }
  std::vector<TokenSource> sources;
  std::int64_t next = 0;
  for (const Json& entry : *list) {
    TokenSource source;
    source.name = json_string(entry, "name", reader.place());
    source.first_token = json_int(entry, "first_token", reader.place());
    source.num_tokens = json_int(entry, "num_tokens", reader.place());
    source.num_documents = json_int(entry, "num_documents", reader.place());
    source.num_text_bytes = json_int(entry, "num_text_bytes", reader.place());
    if (source.first_token != next || source.num_tokens < 0 ||
        source.num_tokens > num_tokens - next) {
      reader.fail_file(fmt::format("source {} at token {} with {} tokens", source.name,
                                   source.first_token, source.num_tokens));
    }
    next += source.num_tokens;
    sources.push_back(std::move(source));
  }
  if (next != num_tokens) {
    reader.fail_file(fmt::format("{} tokens in sources of {}", next, num_tokens));
  }
  return sources;
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) : file_(path) {
  const TokenFileReader reader(file_);
  const Json footer = reader.read_footer();
  const std::int64_t version = json_int(footer, "version", reader.place());
  if (version != kTokenFileVersion) {
    reader.fail_file(fmt::format("version {}", version));
  }
  key_ = json_string(footer, "key", reader.place());
  const std::int64_t num_tokens = json_int(footer, "num_tokens", reader.place());
  const std::int64_t num_documents = json_int(footer, "num_documents", reader.place());
  const std::int64_t vocab_size = json_int(footer, "vocab_size", reader.place());
  if (vocab_size < 1 || vocab_size > INT32_MAX) {
    reader.fail_file(fmt::format("a vocabulary of {}", vocab_size));
  }
  vocab_size_ = static_cast<std::int32_t>(vocab_size);
  tokens_ = reader.array<std::int32_t>(kTokenFileHeaderBytes, num_tokens, "tokens");
  const std::uint64_t offsets_at = token_file_offsets_at(static_cast<std::uint64_t>(num_tokens));
  if (num_documents < 0 || num_documents == INT64_MAX) {
    reader.fail_file(fmt::format("{} documents", num_documents));
  }
  offsets_ = reader.array<std::int64_t>(offsets_at, num_documents + 1, "document offsets");
  if (offsets_.front() != 0 || offsets_.back() != num_tokens ||
      std::adjacent_find(offsets_.begin(), offsets_.end(), std::greater_equal<>()) !=
          offsets_.end()) {
    reader.fail_file("document offsets that do not rise from 0 to the number of tokens");
  }
  sources_ = read_token_sources(footer, reader, num_tokens);
}

std::int64_t TokenFile::document_of(std::int64_t index) const {
  PUZZLE_CHECK(index >= 0 && index < std::ssize(tokens_), "token {} of {}", index, tokens_.size());
  return std::upper_bound(offsets_.begin(), offsets_.end(), index) - offsets_.begin() - 1;
}

}  // namespace puzzle
