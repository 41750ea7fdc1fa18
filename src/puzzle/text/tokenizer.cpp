#include "puzzle/text/tokenizer.h"

#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/text/pipeline_tokenizer.h"
#include "puzzle/text/tokenizer_files.h"
#include "puzzle/text/unicode.h"

namespace puzzle {

std::string Tokenizer::decode(std::span<const std::int32_t> ids, DecodeOptions options) const {
  return replace_invalid_utf8(decode_bytes(ids, options));
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer)
    : tokenizer_(std::move(tokenizer)) {
  PUZZLE_CHECK(tokenizer_ != nullptr, "no tokenizer");
}

std::string StreamDecoder::push(std::int32_t id) {
  if (tokenizer_->is_special(id)) {
    return "";
  }
  pending_ += tokenizer_->token_bytes(id);
  const std::size_t complete = pending_.size() - unfinished_utf8_suffix(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& model) {
  return std::make_shared<PipelineTokenizer>(load_tokenizer_spec(model));
}

}  // namespace puzzle
