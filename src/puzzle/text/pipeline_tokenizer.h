// The one Tokenizer: runs the steps of a TokenizerSpec.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "puzzle/text/added_tokens.h"
#include "puzzle/text/bpe.h"
#include "puzzle/text/pretokenize.h"
#include "puzzle/text/tokenizer.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

class PipelineTokenizer : public Tokenizer {
 public:
  // Throws Error(kFormat) for what check_spec and PreTokenizer refuse.
  explicit PipelineTokenizer(TokenizerSpec spec);
  ~PipelineTokenizer() override;

  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 EncodeOptions options) const override;
  [[nodiscard]] std::string decode_bytes(std::span<const std::int32_t> ids,
                                         DecodeOptions options) const override;
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   DecodeOptions options) const override;
  [[nodiscard]] std::string token_bytes(std::int32_t id) const override;
  [[nodiscard]] const std::string& token_text(std::int32_t id) const override;
  [[nodiscard]] std::optional<std::int32_t> find_token(std::string_view text) const override;
  [[nodiscard]] bool is_special(std::int32_t id) const override;
  [[nodiscard]] std::int32_t vocab_size() const override;
  [[nodiscard]] std::optional<std::int32_t> bos() const override { return spec_.bos; }
  [[nodiscard]] std::optional<std::int32_t> eos() const override { return spec_.eos; }
  [[nodiscard]] bool adds_bos() const override;
  [[nodiscard]] const std::string& chat_template() const override { return spec_.chat_template; }
  [[nodiscard]] const std::string& content_key() const override { return key_; }

  [[nodiscard]] const TokenizerSpec& spec() const { return spec_; }

 private:
  // Memory of one running encode; returned to the pool so that its cache lives on.
  struct Workspace {
    BpeScratch bpe;
    PreTokens pre_tokens;
    std::vector<TextPart> parts;
    std::vector<TextPart> normalized_parts;
    std::string normalized;
  };
  [[nodiscard]] std::unique_ptr<Workspace> take_workspace() const;

  void encode_part(std::string_view text, bool at_start, bool parse_special, Workspace& work,
                   std::vector<std::int32_t>& ids) const;
  void encode_plain(std::string_view text, bool at_start, Workspace& work,
                    std::vector<std::int32_t>& ids) const;
  enum class ByteRuns { kAsTheyAre, kAsText };
  [[nodiscard]] std::string join(std::span<const std::int32_t> ids, DecodeOptions options,
                                 ByteRuns byte_runs) const;
  [[nodiscard]] bool is_byte_token(std::size_t index) const;
  [[nodiscard]] std::size_t checked_index(std::int32_t id) const;

  TokenizerSpec spec_;
  std::string key_;
  TokenIndex index_;
  std::vector<std::string> bytes_;  // by id
  std::vector<bool> is_special_;    // by id
  AddedTokenMatcher raw_matcher_;
  AddedTokenMatcher normalized_matcher_;
  PreTokenizer pre_tokenizer_;
  BpeEncoder bpe_;
  mutable std::mutex pool_mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> pool_;
};

}  // namespace puzzle
