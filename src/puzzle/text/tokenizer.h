// Text to token ids and back: the interface, and loading it from a model on disk.
//
// Ids are those of the model's embedding rows. Bytes that are not valid UTF-8 never fail: a
// byte-level tokenizer keeps them (each run of invalid bytes is a pre-token of its own) and a
// SentencePiece-style one writes them as its <0xNN> tokens, so decode_bytes(encode(x)) == x
// wherever the vocabulary holds every byte. A character or byte that the vocabulary cannot spell
// becomes the unknown token where there is one and is dropped otherwise, as in Hugging Face's
// tokenizers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

struct EncodeOptions {
  bool add_special = false;   // put BOS (and EOS) where the tokenizer's own rule says so
  bool parse_special = true;  // "<|im_end|>" in the text is that token; false: plain characters
};

struct DecodeOptions {
  bool skip_special = false;  // leave out control tokens such as BOS
};

// Immutable once loaded; every member may be called from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  [[nodiscard]] virtual std::vector<std::int32_t> encode(std::string_view text,
                                                         EncodeOptions options = {}) const = 0;

  // The exact bytes of a whole text: SentencePiece-style tokenizers lose the space that they put
  // before the first word. Throws Error(kUsage) for an id outside [0, vocab_size()).
  [[nodiscard]] virtual std::string decode_bytes(std::span<const std::int32_t> ids,
                                                 DecodeOptions options = {}) const = 0;

  // The same as valid UTF-8: broken sequences become U+FFFD, and where <0xNN> tokens stand in a row
  // and are no text together, each of them does (Hugging Face's rule). Throws as decode_bytes.
  [[nodiscard]] virtual std::string decode(std::span<const std::int32_t> ids,
                                           DecodeOptions options = {}) const;

  // The bytes that one id stands for in the middle of a text. Throws as decode_bytes.
  [[nodiscard]] virtual std::string token_bytes(std::int32_t id) const = 0;

  // The vocabulary's own spelling, e.g. "Ġthe" or "▁the"; empty for an id that has none.
  [[nodiscard]] virtual const std::string& token_text(std::int32_t id) const = 0;

  // The id of a token by the vocabulary's spelling ("<|im_end|>", "Ġthe").
  [[nodiscard]] virtual std::optional<std::int32_t> find_token(std::string_view text) const = 0;

  // True for control tokens (BOS, <|im_start|>, …), which are no part of anybody's text.
  [[nodiscard]] virtual bool is_special(std::int32_t id) const = 0;

  // One more than the largest id; the model may have more embedding rows than this.
  [[nodiscard]] virtual std::int32_t vocab_size() const = 0;
  [[nodiscard]] virtual std::optional<std::int32_t> bos() const = 0;
  [[nodiscard]] virtual std::optional<std::int32_t> eos() const = 0;
  // Whether `add_special` puts bos() first.
  [[nodiscard]] virtual bool adds_bos() const = 0;

  // Jinja source; empty if the model has none.
  [[nodiscard]] virtual const std::string& chat_template() const = 0;

  // 32 hexadecimal digits over everything that ids depend on; equal keys give equal ids.
  [[nodiscard]] virtual const std::string& content_key() const = 0;
};

// Turns ids into text as they are generated, never giving out half a character.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer);

  // The characters that `id` completes, in continuation of what was pushed before (no space is
  // stripped); control tokens give nothing. Invalid bytes become U+FFFD.
  [[nodiscard]] std::string push(std::int32_t id);
  // What is left of an unfinished character, as U+FFFD.
  [[nodiscard]] std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;
};

// `model` is a .gguf file, a Hugging Face folder (tokenizer.json, with tokenizer_config.json where
// present) or a tokenizer.json itself, or llama2.c's tok*.bin.
// Throws Error(kIo) for a missing file, Error(kFormat) for a broken one, a tokenizer type or a
// pre-tokenizer pattern that is not supported (the message prints it).
[[nodiscard]] std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& model);

}  // namespace puzzle
