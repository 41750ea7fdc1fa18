// A tokenizer whose tokens can be counted by hand: a space and the letter after it are one token,
// every other byte is one. "a cat" is a, ␣c, a, t.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/text/tokenizer.h"

namespace puzzle::test {

inline constexpr std::int32_t kToyBos = 1;
inline constexpr std::int32_t kToyEos = 2;
inline constexpr std::int32_t kToyEndOfText = 3;
inline constexpr std::int32_t kToyBytes = 4;     // + byte
inline constexpr std::int32_t kToySpaced = 260;  // + byte: a space before it
inline constexpr std::int32_t kToyVocabSize = 516;

inline std::int32_t toy(char byte) { return kToyBytes + static_cast<unsigned char>(byte); }
inline std::int32_t toy_spaced(char byte) { return kToySpaced + static_cast<unsigned char>(byte); }

struct ToyOptions {
  bool has_bos = true;
  bool has_eos = true;
  bool has_end_of_text = false;
  bool adds_bos = false;
  std::string key = "toy";
};

class ToyTokenizer : public Tokenizer {
 public:
  explicit ToyTokenizer(ToyOptions options = {}) : options_(std::move(options)) {}

  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 EncodeOptions options = {}) const override {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (options.parse_special && text.substr(i).starts_with("<s>")) {
        ids.push_back(kToyBos);
        i += 2;
      } else if (text[i] == ' ' && i + 1 < text.size() && text[i + 1] != ' ') {
        ids.push_back(toy_spaced(text[++i]));
      } else {
        ids.push_back(toy(text[i]));
      }
    }
    return ids;
  }
  [[nodiscard]] std::string decode_bytes(std::span<const std::int32_t> ids,
                                         DecodeOptions /*options*/ = {}) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      text += token_bytes(id);
    }
    return text;
  }
  [[nodiscard]] std::string token_bytes(std::int32_t id) const override {
    if (id >= kToySpaced) {
      return std::string(" ") + static_cast<char>(id - kToySpaced);
    }
    return id >= kToyBytes ? std::string(1, static_cast<char>(id - kToyBytes)) : "";
  }
  [[nodiscard]] const std::string& token_text(std::int32_t /*id*/) const override { return empty_; }
  [[nodiscard]] std::optional<std::int32_t> find_token(std::string_view text) const override {
    if (text == "<s>" && options_.has_bos) {
      return kToyBos;
    }
    if (text == "<|endoftext|>" && options_.has_end_of_text) {
      return kToyEndOfText;
    }
    return text.size() == 1 ? std::optional(toy(text[0])) : std::nullopt;
  }
  [[nodiscard]] bool is_special(std::int32_t id) const override { return id < kToyBytes; }
  [[nodiscard]] std::int32_t vocab_size() const override { return kToyVocabSize; }
  [[nodiscard]] std::optional<std::int32_t> bos() const override {
    return options_.has_bos ? std::optional(kToyBos) : std::nullopt;
  }
  [[nodiscard]] std::optional<std::int32_t> eos() const override {
    return options_.has_eos ? std::optional(kToyEos) : std::nullopt;
  }
  [[nodiscard]] bool adds_bos() const override { return options_.adds_bos; }
  [[nodiscard]] const std::string& chat_template() const override { return empty_; }
  [[nodiscard]] const std::string& content_key() const override { return options_.key; }

 private:
  ToyOptions options_;
  std::string empty_;
};

}  // namespace puzzle::test
