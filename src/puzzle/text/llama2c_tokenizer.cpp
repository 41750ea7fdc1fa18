#include "puzzle/text/llama2c_tokenizer.h"

#include <cstring>
#include <string>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"

namespace puzzle {
namespace {

constexpr std::int32_t kMaxTokenBytes = 1 << 16;
constexpr std::int32_t kUnkId = 0;
constexpr std::int32_t kBosId = 1;
constexpr std::int32_t kEosId = 2;
constexpr std::size_t kFirstByteId = 3;
constexpr std::size_t kFirstPieceId = kFirstByteId + 256;

// Reads a little-endian file front to back.
class Cursor {
 public:
  Cursor(std::string_view data, std::string place) : data_(data), place_(std::move(place)) {}

  [[nodiscard]] bool at_end() const { return at_ == data_.size(); }
  [[nodiscard]] std::size_t position() const { return at_; }

  std::string_view take(std::size_t bytes) {
    if (bytes > data_.size() - at_) {
      fail(ErrorKind::kFormat, "{}: ends at byte {} inside a token that needs {} more bytes",
           place_, data_.size(), bytes - (data_.size() - at_));
    }
    at_ += bytes;
    return data_.substr(at_ - bytes, bytes);
  }

  template <class Value>
  Value take_value() {
    Value value{};
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

 private:
  std::string_view data_;
  std::string place_;
  std::size_t at_ = 0;
};

std::string spell_spaces(std::string_view text) {
  std::string spelled;
  for (const char byte : text) {
    if (byte == ' ') {
      spelled += "\u2581";
    } else {
      spelled += byte;
    }
  }
  return spelled;
}

void check_layout(TokenizerSpec& spec) {
  const auto text = [&](std::size_t id) { return spec.tokens[id].text; };
  bool is_right = spec.tokens.size() >= kFirstPieceId;
  for (std::size_t byte = 0; is_right && byte < 256; ++byte) {
    is_right = text(kFirstByteId + byte) == byte_token(static_cast<std::uint8_t>(byte));
    spec.tokens[kFirstByteId + byte].kind = TokenKind::kByte;
  }
  // llama2.c's exporter writes "\n<s>\n" and "\n</s>\n".
  is_right = is_right && text(kUnkId) == "<unk>" &&
             (text(kBosId) == "\n<s>\n" || text(kBosId) == "<s>") &&
             (text(kEosId) == "\n</s>\n" || text(kEosId) == "</s>");
  if (!is_right) {
    fail(ErrorKind::kFormat,
         "{}: not a llama2.c tokenizer: ids 0 to {} are not <unk>, <s>, </s> and the 256 bytes",
         spec.place, kFirstPieceId - 1);
  }
  spec.tokens[kUnkId].kind = TokenKind::kUnknown;
  spec.tokens[kBosId] = {.text = "<s>", .kind = TokenKind::kControl};
  spec.tokens[kEosId] = {.text = "</s>", .kind = TokenKind::kControl};
  for (const std::int32_t id : {kUnkId, kBosId, kEosId}) {
    spec.added.push_back(
        {.id = id, .content = spec.tokens[static_cast<std::size_t>(id)].text, .special = true});
  }
}

}  // namespace

TokenizerSpec load_llama2c_tokenizer(const std::filesystem::path& path) {
  TokenizerSpec spec;
  spec.place = path.string();
  const std::string data = read_text_file(path);
  Cursor cursor(data, spec.place);
  const auto longest = cursor.take_value<std::int32_t>();
  if (longest < 1 || longest > kMaxTokenBytes) {
    fail(ErrorKind::kFormat, "{}: the longest token has {} bytes, expected 1 to {}", spec.place,
         longest, kMaxTokenBytes);
  }
  while (!cursor.at_end()) {
    const auto score = cursor.take_value<float>();
    const auto bytes = cursor.take_value<std::int32_t>();
    if (bytes < 0 || bytes > kMaxTokenBytes) {
      fail(ErrorKind::kFormat, "{}: token {} at byte {} has {} bytes, expected 0 to {}", spec.place,
           spec.tokens.size(), cursor.position(), bytes, kMaxTokenBytes);
    }
    spec.tokens.push_back({.text = spell_spaces(cursor.take(static_cast<std::size_t>(bytes)))});
    spec.scores.push_back(score);
  }
  check_layout(spec);
  spec.byte_fallback = true;
  spec.fuse_unk = true;
  spec.normalizer = {PrependNormalizer{"\u2581"},
                     ReplaceNormalizer{.pattern = " ", .content = "\u2581"}};
  spec.decoder = {.byte_fallback = true, .space_spelling = "\u2581", .strip_left = 1};
  spec.unk = kUnkId;
  spec.bos = kBosId;
  spec.eos = kEosId;
  spec.prefix = {kBosId};
  return spec;
}

}  // namespace puzzle
