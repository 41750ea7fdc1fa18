#include "puzzle/text/tokenizer_spec.h"

#include <cmath>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"

namespace puzzle {
namespace {

constexpr std::size_t kMaxVocabulary = std::size_t{1} << 24;

void check_id(const TokenizerSpec& spec, std::int32_t id, std::string_view what) {
  if (id < 0 || static_cast<std::size_t>(id) >= spec.tokens.size()) {
    fail(ErrorKind::kFormat, "{}: {} has id {}, expected one below the vocabulary's {}", spec.place,
         what, id, spec.tokens.size());
  }
}

void check_optional_id(const TokenizerSpec& spec, std::optional<std::int32_t> id,
                       std::string_view what) {
  if (id) {
    check_id(spec, *id, what);
  }
}

void check_merges(const TokenizerSpec& spec) {
  const TokenIndex index = index_tokens(spec.tokens);
  for (std::size_t i = 0; i < spec.merges.size(); ++i) {
    const auto [left, right] = spec.merges[i];
    check_id(spec, left, fmt::format("the left part of merge {}", i));
    check_id(spec, right, fmt::format("the right part of merge {}", i));
    const std::string& left_text = spec.tokens[static_cast<std::size_t>(left)].text;
    const std::string& right_text = spec.tokens[static_cast<std::size_t>(right)].text;
    if (!index.contains(left_text + right_text)) {
      fail(ErrorKind::kFormat, "{}: merge {} gives \"{}{}\", which is not in the vocabulary",
           spec.place, i, left_text, right_text);
    }
  }
}

struct AddStepToKey {
  KeyBuilder& key;

  void operator()(const UnicodeNormalizer& step) const {
    key.add("unicode", static_cast<int>(step.form));
  }
  void operator()(const PrependNormalizer& step) const { key.add("prepend", step.text); }
  void operator()(const ReplaceNormalizer& step) const {
    key.add("replace", step.pattern).add("by", step.content);
  }
  void operator()(const SplitStep& step) const {
    key.add("split", step.pattern)
        .add("regex", step.is_regex)
        .add("behavior", static_cast<int>(step.behavior))
        .add("invert", step.invert);
  }
  void operator()(const DigitsStep& step) const { key.add("digits", step.individual); }
  void operator()(const ByteLevelStep& step) const {
    key.add("byte level", step.add_prefix_space).add("regex", step.use_regex);
  }
  void operator()(const MetaspaceStep& step) const {
    key.add("metaspace", step.replacement)
        .add("prepend", static_cast<int>(step.prepend))
        .add("split", step.split);
  }
};

void add_optional_id(KeyBuilder& key, std::string_view label, std::optional<std::int32_t> id) {
  key.add(label, id.value_or(-1));
}

}  // namespace

TokenIndex index_tokens(const std::vector<VocabToken>& tokens) {
  TokenIndex index;
  index.reserve(tokens.size());
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].text.empty()) {
      index.emplace(tokens[id].text, static_cast<std::int32_t>(id));
    }
  }
  return index;
}

bool is_piece(const VocabToken& token) {
  return !token.text.empty() &&
         (token.kind == TokenKind::kNormal || token.kind == TokenKind::kUserDefined);
}

std::optional<std::uint8_t> parse_byte_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') {
    return std::nullopt;
  }
  unsigned value = 0;
  for (const char digit : text.substr(3, 2)) {
    if (digit >= '0' && digit <= '9') {
      value = value * 16 + static_cast<unsigned>(digit - '0');
    } else if (digit >= 'A' && digit <= 'F') {
      value = value * 16 + static_cast<unsigned>(digit - 'A') + 10;
    } else {
      return std::nullopt;
    }
  }
  return static_cast<std::uint8_t>(value);
}

std::string byte_token(std::uint8_t byte) { return fmt::format("<0x{:02X}>", byte); }

void check_spec(const TokenizerSpec& spec) {
  if (spec.tokens.empty() || spec.tokens.size() > kMaxVocabulary) {
    fail(ErrorKind::kFormat, "{}: a vocabulary of {} tokens, expected 1 to {}", spec.place,
         spec.tokens.size(), kMaxVocabulary);
  }
  check_merges(spec);
  if (!spec.scores.empty() && spec.scores.size() != spec.tokens.size()) {
    fail(ErrorKind::kFormat, "{}: {} scores for {} tokens", spec.place, spec.scores.size(),
         spec.tokens.size());
  }
  for (std::size_t id = 0; id < spec.scores.size(); ++id) {
    if (std::isnan(spec.scores[id])) {
      fail(ErrorKind::kFormat, "{}: the score of token {} is not a number", spec.place, id);
    }
  }
  for (const AddedToken& token : spec.added) {
    check_id(spec, token.id, fmt::format("added token \"{}\"", token.content));
  }
  for (const NormalizerStep& step : spec.normalizer) {
    const auto* replace = std::get_if<ReplaceNormalizer>(&step);
    if (replace != nullptr && replace->pattern.empty()) {
      fail(ErrorKind::kFormat, "{}: the normalizer replaces an empty string", spec.place);
    }
  }
  for (const std::vector<std::int32_t>* ids : {&spec.prefix, &spec.suffix}) {
    for (const std::int32_t id : *ids) {
      check_id(spec, id, "a token that the template adds");
    }
  }
  check_optional_id(spec, spec.unk, "the unknown token");
  check_optional_id(spec, spec.bos, "the BOS token");
  check_optional_id(spec, spec.eos, "the EOS token");
  check_optional_id(spec, spec.pad, "the padding token");
}

std::string spec_key(const TokenizerSpec& spec) {
  KeyBuilder key;
  for (const VocabToken& token : spec.tokens) {
    key.add("token", token.text).add("kind", static_cast<int>(token.kind));
  }
  for (const auto& [left, right] : spec.merges) {
    key.add("merge", left).add("with", right);
  }
  for (const float score : spec.scores) {
    key.add("score", static_cast<double>(score));
  }
  for (const AddedToken& token : spec.added) {
    key.add("added", token.id)
        .add("content", token.content)
        .add("single_word", token.single_word)
        .add("lstrip", token.lstrip)
        .add("rstrip", token.rstrip)
        .add("normalized", token.normalized)
        .add("special", token.special);
  }
  key.add("byte_level", spec.byte_level)
      .add("byte_fallback", spec.byte_fallback)
      .add("fuse_unk", spec.fuse_unk)
      .add("ignore_merges", spec.ignore_merges);
  for (const NormalizerStep& step : spec.normalizer) {
    std::visit(AddStepToKey{key}, step);
  }
  for (const PreTokenizerStep& step : spec.pre_tokenizer) {
    std::visit(AddStepToKey{key}, step);
  }
  key.add("decoder byte_level", spec.decoder.byte_level)
      .add("decoder byte_fallback", spec.decoder.byte_fallback)
      .add("decoder space", spec.decoder.space_spelling)
      .add("decoder strip_left", spec.decoder.strip_left)
      .add("decoder metaspace_first", spec.decoder.metaspace_first);
  for (const std::int32_t id : spec.prefix) {
    key.add("prefix", id);
  }
  for (const std::int32_t id : spec.suffix) {
    key.add("suffix", id);
  }
  add_optional_id(key, "unk", spec.unk);
  add_optional_id(key, "bos", spec.bos);
  add_optional_id(key, "eos", spec.eos);
  return key.key();
}

}  // namespace puzzle
