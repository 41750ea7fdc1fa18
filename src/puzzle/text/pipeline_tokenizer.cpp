#include "puzzle/text/pipeline_tokenizer.h"

#include <algorithm>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

TokenizerSpec checked(TokenizerSpec spec) {
  check_spec(spec);
  return spec;
}

// Those found before normalising, or those found after, spelled as the normalizer leaves them.
AddedTokenMatcher make_matcher(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added) {
    if (token.normalized == normalized) {
      if (normalized) {
        normalize(spec.normalizer, token.content);
      }
      tokens.push_back(std::move(token));
    }
  }
  return AddedTokenMatcher(std::move(tokens));
}

std::string replace_spelling(std::string text, const std::string& spelling) {
  for (std::size_t at = text.find(spelling); at != std::string::npos;
       at = text.find(spelling, at + 1)) {
    text.replace(at, spelling.size(), " ");
  }
  return text;
}

std::string bytes_of(const VocabToken& token, const DecoderSpec& decoder) {
  if (token.kind == TokenKind::kControl) {
    return token.text;
  }
  if (decoder.byte_level) {
    return alphabet_to_bytes(token.text).value_or(token.text);
  }
  if (decoder.byte_fallback) {
    if (const auto byte = parse_byte_token(token.text)) {
      return std::string(1, static_cast<char>(*byte));
    }
  }
  return decoder.space_spelling.empty() ? token.text
                                        : replace_spelling(token.text, decoder.space_spelling);
}

std::vector<std::string> make_token_bytes(const TokenizerSpec& spec) {
  std::vector<std::string> bytes;
  bytes.reserve(spec.tokens.size());
  for (const VocabToken& token : spec.tokens) {
    bytes.push_back(bytes_of(token, spec.decoder));
  }
  // Added tokens are plain text, whatever alphabet the others are spelled in.
  for (const AddedToken& token : spec.added) {
    bytes[static_cast<std::size_t>(token.id)] = token.content;
  }
  return bytes;
}

std::vector<bool> find_special(const TokenizerSpec& spec) {
  std::vector<bool> is_special(spec.tokens.size());
  for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
    is_special[id] = spec.tokens[id].kind == TokenKind::kControl;
  }
  for (const AddedToken& token : spec.added) {
    if (token.special) {
      is_special[static_cast<std::size_t>(token.id)] = true;
    }
  }
  return is_special;
}

}  // namespace

PipelineTokenizer::PipelineTokenizer(TokenizerSpec spec)
    : spec_(checked(std::move(spec))),
      key_(spec_key(spec_)),
      index_(index_tokens(spec_.tokens)),
      bytes_(make_token_bytes(spec_)),
      is_special_(find_special(spec_)),
      raw_matcher_(make_matcher(spec_, false)),
      normalized_matcher_(make_matcher(spec_, true)),
      pre_tokenizer_(spec_.pre_tokenizer, spec_.place),
      bpe_(spec_) {}

PipelineTokenizer::~PipelineTokenizer() = default;

std::unique_ptr<PipelineTokenizer::Workspace> PipelineTokenizer::take_workspace() const {
  const std::lock_guard lock(pool_mutex_);
  if (pool_.empty()) {
    return std::make_unique<Workspace>();
  }
  std::unique_ptr<Workspace> work = std::move(pool_.back());
  pool_.pop_back();
  return work;
}

std::vector<std::int32_t> PipelineTokenizer::encode(std::string_view text,
                                                    EncodeOptions options) const {
  std::unique_ptr<Workspace> work = take_workspace();
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (options.add_special) {
    ids.insert(ids.end(), spec_.prefix.begin(), spec_.prefix.end());
  }
  work->parts.clear();
  raw_matcher_.split(text, options.parse_special, work->parts);
  for (const TextPart& part : work->parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_part(text.substr(part.span.begin, part.span.end - part.span.begin),
                  part.span.begin == 0, options.parse_special, *work, ids);
    }
  }
  if (options.add_special) {
    ids.insert(ids.end(), spec_.suffix.begin(), spec_.suffix.end());
  }
  const std::lock_guard lock(pool_mutex_);
  pool_.push_back(std::move(work));
  return ids;
}

void PipelineTokenizer::encode_part(std::string_view text, bool at_start, bool parse_special,
                                    Workspace& work, std::vector<std::int32_t>& ids) const {
  if (!spec_.normalizer.empty()) {
    work.normalized = text;
    normalize(spec_.normalizer, work.normalized);
    text = work.normalized;
  }
  if (normalized_matcher_.empty()) {
    encode_plain(text, at_start, work, ids);
    return;
  }
  work.normalized_parts.clear();
  normalized_matcher_.split(text, parse_special, work.normalized_parts);
  for (const TextPart& part : work.normalized_parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_plain(text.substr(part.span.begin, part.span.end - part.span.begin),
                   at_start && part.span.begin == 0, work, ids);
    }
  }
}

void PipelineTokenizer::encode_plain(std::string_view text, bool at_start, Workspace& work,
                                     std::vector<std::int32_t>& ids) const {
  pre_tokenizer_.split(text, at_start, work.pre_tokens);
  for (const TextSpan& span : work.pre_tokens.spans) {
    bpe_.encode(work.pre_tokens.text.substr(span.begin, span.end - span.begin), work.bpe, ids);
  }
}

std::size_t PipelineTokenizer::checked_index(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= bytes_.size()) {
    fail(ErrorKind::kUsage, "{}: token id {}, expected 0 to {}", spec_.place, id,
         bytes_.size() - 1);
  }
  return static_cast<std::size_t>(id);
}

std::string PipelineTokenizer::decode_bytes(std::span<const std::int32_t> ids,
                                            DecodeOptions options) const {
  return join(ids, options, ByteRuns::kAsTheyAre);
}

std::string PipelineTokenizer::decode(std::span<const std::int32_t> ids,
                                      DecodeOptions options) const {
  return replace_invalid_utf8(
      join(ids, options, spec_.decoder.byte_fallback ? ByteRuns::kAsText : ByteRuns::kAsTheyAre));
}

bool PipelineTokenizer::is_byte_token(std::size_t index) const {
  return bytes_[index].size() == 1 && parse_byte_token(spec_.tokens[index].text).has_value();
}

std::string PipelineTokenizer::join(std::span<const std::int32_t> ids, DecodeOptions options,
                                    ByteRuns byte_runs) const {
  const DecoderSpec& decoder = spec_.decoder;
  std::string text;
  std::size_t run_begin = 0;  // of the byte tokens at the end of `text`
  const auto end_run = [&] {
    const std::size_t length = text.size() - run_begin;
    if (valid_utf8_prefix(std::string_view(text).substr(run_begin)) < length) {
      text.resize(run_begin);
      for (std::size_t i = 0; i < length; ++i) {
        append_utf8(text, kReplacementCharacter);
      }
    }
  };
  bool is_first = true;
  for (const std::int32_t id : ids) {
    const std::size_t index = checked_index(id);
    if (options.skip_special && is_special(id)) {
      continue;
    }
    const bool in_run = byte_runs == ByteRuns::kAsText && is_byte_token(index);
    if (!in_run) {
      end_run();
    }
    if (is_first && decoder.metaspace_first) {
      std::string bytes = bytes_[index];
      bytes.erase(std::remove(bytes.begin(), bytes.end(), ' '), bytes.end());
      text += bytes;
    } else {
      text += bytes_[index];
    }
    is_first = false;
    if (!in_run) {
      run_begin = text.size();
    }
  }
  end_run();
  std::size_t strip = 0;
  while (strip < static_cast<std::size_t>(decoder.strip_left) && strip < text.size() &&
         text[strip] == ' ') {
    ++strip;
  }
  return text.substr(strip);
}

std::string PipelineTokenizer::token_bytes(std::int32_t id) const {
  return bytes_[checked_index(id)];
}

const std::string& PipelineTokenizer::token_text(std::int32_t id) const {
  return spec_.tokens[checked_index(id)].text;
}

std::optional<std::int32_t> PipelineTokenizer::find_token(std::string_view text) const {
  const auto found = index_.find(text);
  return found == index_.end() ? std::nullopt : std::optional(found->second);
}

bool PipelineTokenizer::is_special(std::int32_t id) const { return is_special_[checked_index(id)]; }

std::int32_t PipelineTokenizer::vocab_size() const {
  return static_cast<std::int32_t>(spec_.tokens.size());
}

bool PipelineTokenizer::adds_bos() const {
  return spec_.bos && !spec_.prefix.empty() && spec_.prefix.front() == *spec_.bos;
}

}  // namespace puzzle
