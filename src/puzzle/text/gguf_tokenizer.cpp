#include "puzzle/text/gguf_tokenizer.h"

#include <algorithm>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/base/log.h"
#include "puzzle/text/bpe.h"
#include "puzzle/text/gguf_pre.h"

namespace puzzle {
namespace {

constexpr float kUnreachableScore = -1e9F;
constexpr std::string_view kSpaceSpelling = "\u2581";

TokenKind checked_kind(std::int64_t type, const std::string& place, std::size_t id) {
  if (type < 1 || type > 6) {
    fail(ErrorKind::kFormat, "{}: tokenizer.ggml.token_type of token {} is {}, expected 1 to 6",
         place, id, type);
  }
  return static_cast<TokenKind>(type);
}

void read_gguf_vocabulary(const GgufFile& file, TokenizerSpec& spec) {
  const std::vector<std::string>& texts = file.string_list("tokenizer.ggml.tokens");
  std::vector<std::int64_t> types(texts.size(), static_cast<std::int64_t>(TokenKind::kNormal));
  if (file.has("tokenizer.ggml.token_type")) {
    types = file.int_list("tokenizer.ggml.token_type");
  }
  if (types.size() != texts.size()) {
    fail(ErrorKind::kFormat, "{}: {} token types for {} tokens", spec.place, types.size(),
         texts.size());
  }
  for (std::size_t id = 0; id < texts.size(); ++id) {
    const TokenKind kind = checked_kind(types[id], spec.place, id);
    spec.tokens.push_back({.text = texts[id], .kind = kind});
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnknown) {
      spec.added.push_back({.id = static_cast<std::int32_t>(id),
                            .content = texts[id],
                            .special = kind != TokenKind::kUserDefined});
    }
  }
}

std::optional<std::int32_t> token_id(const GgufFile& file, std::string_view key,
                                     const TokenizerSpec& spec) {
  if (!file.has(key)) {
    return std::nullopt;
  }
  const std::int64_t id = file.int_value(key);
  if (id < 0 || id >= static_cast<std::int64_t>(spec.tokens.size())) {
    fail(ErrorKind::kFormat, "{}: {} is {}, expected an id below {}", spec.place, key, id,
         spec.tokens.size());
  }
  return static_cast<std::int32_t>(id);
}

const GgufPreTokenizer& named_pre(const GgufFile& file) {
  const std::string name = file.string_value("tokenizer.ggml.pre", "");
  if (name.empty()) {
    log_warning("{}: tokenizer.ggml.pre is missing; GPT-2's pattern is used", file.path().string());
  }
  std::string known;
  for (const GgufPreTokenizer& pre : gguf_pre_tokenizers()) {
    if (pre.name == (name.empty() ? "default" : name)) {
      return pre;
    }
    known += known.empty() ? "" : ", ";
    known += pre.name;
  }
  fail(ErrorKind::kFormat, "{}: tokenizer.ggml.pre \"{}\" is not supported; supported are {}",
       file.path().string(), name, known);
}

void read_gguf_merges(const GgufFile& file, TokenizerSpec& spec) {
  const std::vector<std::string>& merges = file.string_list("tokenizer.ggml.merges");
  const TokenIndex index = index_tokens(spec.tokens);
  spec.merges.reserve(merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string_view merge = merges[i];
    const std::size_t space = merge.find(' ', 1);
    const auto left =
        space == std::string_view::npos ? index.end() : index.find(merge.substr(0, space));
    const auto right =
        space == std::string_view::npos ? index.end() : index.find(merge.substr(space + 1));
    if (left == index.end() || right == index.end()) {
      fail(ErrorKind::kFormat,
           "{}: tokenizer.ggml.merges[{}] is \"{}\", expected two tokens of the vocabulary",
           spec.place, i, merge);
    }
    spec.merges.emplace_back(left->second, right->second);
  }
}

// Returns whether BOS is added where the file does not say.
bool read_byte_level(const GgufFile& file, TokenizerSpec& spec) {
  const GgufPreTokenizer& pre = named_pre(file);
  read_gguf_merges(file, spec);
  spec.byte_level = true;
  spec.ignore_merges = pre.ignore_merges;
  spec.normalizer = normalizer_of(pre);
  spec.pre_tokenizer = steps_of(pre);
  spec.decoder.byte_level = true;
  return pre.adds_bos;
}

void read_sentencepiece(const GgufFile& file, TokenizerSpec& spec) {
  spec.scores = file.float_list("tokenizer.ggml.scores");
  const bool prefix = file.bool_value("tokenizer.ggml.add_space_prefix", true);
  if (prefix) {
    spec.normalizer.emplace_back(PrependNormalizer{std::string(kSpaceSpelling)});
  }
  spec.normalizer.emplace_back(
      ReplaceNormalizer{.pattern = " ", .content = std::string(kSpaceSpelling)});
  spec.byte_fallback = std::any_of(spec.tokens.begin(), spec.tokens.end(),
                                   [](const VocabToken& t) { return t.kind == TokenKind::kByte; });
  spec.fuse_unk = true;
  spec.unk = token_id(file, "tokenizer.ggml.unknown_token_id", spec);
  if (!spec.unk && spec.tokens[0].kind == TokenKind::kUnknown) {
    spec.unk = 0;
  }
  spec.decoder = {.byte_fallback = spec.byte_fallback,
                  .space_spelling = std::string(kSpaceSpelling),
                  .strip_left = prefix ? 1 : 0};
}

// Minus the lowest rank of a merge that yields the piece.
std::vector<float> scores_from_merges(const TokenizerSpec& spec) {
  std::vector<float> scores(spec.tokens.size(), kUnreachableScore);
  for (const Merge& merge : make_merges(spec)) {
    float& score = scores[static_cast<std::size_t>(merge.id)];
    score = std::max(score, -static_cast<float>(merge.rank));
  }
  return scores;
}

struct SpaceRule {
  bool is_sentencepiece = true;
  bool adds_prefix = false;
};

// Whether the steps do what llama.cpp's "llama" tokenizer does: spaces become U+2581, perhaps one
// more in front.
SpaceRule space_rule_of(const TokenizerSpec& spec) {
  SpaceRule rule;
  bool replaces = false;
  for (const NormalizerStep& step : spec.normalizer) {
    const auto* prepend = std::get_if<PrependNormalizer>(&step);
    const auto* replace = std::get_if<ReplaceNormalizer>(&step);
    if (prepend != nullptr && (prepend->text == kSpaceSpelling || prepend->text == " ")) {
      rule.adds_prefix = true;
    } else if (replace != nullptr && replace->pattern == " " &&
               replace->content == kSpaceSpelling) {
      replaces = true;
    } else {
      rule.is_sentencepiece = false;
    }
  }
  for (const PreTokenizerStep& step : spec.pre_tokenizer) {
    const auto* metaspace = std::get_if<MetaspaceStep>(&step);
    if (metaspace != nullptr && metaspace->replacement == kSpaceSpelling) {
      rule.adds_prefix |= metaspace->prepend != PrependScheme::kNever;
      replaces = true;
    } else {
      rule.is_sentencepiece = false;
    }
  }
  rule.is_sentencepiece &= replaces && !spec.byte_level;
  return rule;
}

// What llama.cpp does otherwise than the tokenizer, in rare texts; the export goes on.
void warn_of_differences(const TokenizerSpec& spec) {
  for (const AddedToken& token : spec.added) {
    if (token.lstrip || token.rstrip || token.single_word) {
      log_warning("{}: llama.cpp takes \"{}\" without the white space rule of its added token",
                  spec.place, token.content);
    }
  }
  for (const PreTokenizerStep& step : spec.pre_tokenizer) {
    const auto* metaspace = std::get_if<MetaspaceStep>(&step);
    if (metaspace != nullptr && metaspace->prepend != PrependScheme::kNever) {
      log_warning("{}: llama.cpp puts a space before the first word even where the text has one",
                  spec.place);
    }
  }
}

void add_gguf_vocabulary(const TokenizerSpec& spec, std::size_t num_tokens, GgufKeys& keys) {
  std::vector<std::string> texts;
  std::vector<std::int32_t> types;
  for (std::size_t id = 0; id < num_tokens; ++id) {
    const bool is_token = id < spec.tokens.size() && !spec.tokens[id].text.empty();
    texts.push_back(is_token ? spec.tokens[id].text : fmt::format("[PAD{}]", id));
    types.push_back(
        static_cast<std::int32_t>(is_token ? spec.tokens[id].kind : TokenKind::kUnused));
  }
  keys.emplace_back("tokenizer.ggml.tokens", std::move(texts));
  keys.emplace_back("tokenizer.ggml.token_type", std::move(types));
}

void add_gguf_merges(const TokenizerSpec& spec, GgufKeys& keys) {
  std::vector<std::string> merges;
  for (const auto& [left, right] : spec.merges) {
    merges.push_back(spec.tokens[static_cast<std::size_t>(left)].text + " " +
                     spec.tokens[static_cast<std::size_t>(right)].text);
  }
  keys.emplace_back("tokenizer.ggml.merges", std::move(merges));
}

void add_gguf_special(const TokenizerSpec& spec, GgufKeys& keys) {
  const std::pair<const char*, std::optional<std::int32_t>> ids[] = {
      {"tokenizer.ggml.bos_token_id", spec.bos},
      {"tokenizer.ggml.eos_token_id", spec.eos},
      {"tokenizer.ggml.unknown_token_id", spec.unk},
      {"tokenizer.ggml.padding_token_id", spec.pad},
  };
  for (const auto& [key, id] : ids) {
    if (id) {
      keys.emplace_back(key, static_cast<std::uint32_t>(*id));
    }
  }
  const auto adds = [](const std::vector<std::int32_t>& template_ids,
                       std::optional<std::int32_t> id) {
    return id && std::find(template_ids.begin(), template_ids.end(), *id) != template_ids.end();
  };
  keys.emplace_back("tokenizer.ggml.add_bos_token", adds(spec.prefix, spec.bos));
  keys.emplace_back("tokenizer.ggml.add_eos_token", adds(spec.suffix, spec.eos));
  if (!spec.chat_template.empty()) {
    keys.emplace_back("tokenizer.chat_template", spec.chat_template);
  }
}

}  // namespace

TokenizerSpec load_gguf_tokenizer(const GgufFile& file) {
  TokenizerSpec spec;
  spec.place = file.path().string();
  const std::string& model = file.string_value("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama") {
    fail(ErrorKind::kFormat,
         "{}: tokenizer.ggml.model \"{}\" is not supported; supported are "
         "gpt2 and llama",
         spec.place, model);
  }
  read_gguf_vocabulary(file, spec);
  if (spec.tokens.empty()) {
    fail(ErrorKind::kFormat, "{}: tokenizer.ggml.tokens is empty", spec.place);
  }
  spec.bos = token_id(file, "tokenizer.ggml.bos_token_id", spec);
  spec.eos = token_id(file, "tokenizer.ggml.eos_token_id", spec);
  spec.pad = token_id(file, "tokenizer.ggml.padding_token_id", spec);
  spec.chat_template = file.string_value("tokenizer.chat_template", "");
  bool adds_bos = true;
  if (model == "gpt2") {
    adds_bos = read_byte_level(file, spec);
  } else {
    read_sentencepiece(file, spec);
  }
  if (spec.bos && file.bool_value("tokenizer.ggml.add_bos_token", adds_bos)) {
    spec.prefix.push_back(*spec.bos);
  }
  if (spec.eos && file.bool_value("tokenizer.ggml.add_eos_token", false)) {
    spec.suffix.push_back(*spec.eos);
  }
  return spec;
}

GgufKeys make_gguf_keys(const TokenizerSpec& spec, std::int64_t num_tokens) {
  if (num_tokens < static_cast<std::int64_t>(spec.tokens.size())) {
    fail(ErrorKind::kFormat, "{}: {} tokens, but the model's embedding has {} rows", spec.place,
         spec.tokens.size(), num_tokens);
  }
  warn_of_differences(spec);
  GgufKeys keys;
  const auto rows = static_cast<std::size_t>(num_tokens);
  if (spec.byte_level) {
    const GgufPreTokenizer* pre = find_gguf_pre(spec);
    if (pre == nullptr) {
      fail(ErrorKind::kFormat, "{}: llama.cpp has no name for this tokenizer's pre-tokenizer",
           spec.place);
    }
    keys.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
    keys.emplace_back("tokenizer.ggml.pre", std::string(pre->name));
    add_gguf_vocabulary(spec, rows, keys);
    add_gguf_merges(spec, keys);
  } else {
    const SpaceRule rule = space_rule_of(spec);
    if (!spec.byte_fallback) {
      fail(
          ErrorKind::kFormat,
          "{}: byte_fallback is off, but llama.cpp always spells unknown characters by their bytes",
          spec.place);
    }
    if (!rule.is_sentencepiece) {
      fail(ErrorKind::kFormat,
           "{}: neither byte-level nor SentencePiece-style (spaces as U+2581), so llama.cpp has no "
           "form for this tokenizer",
           spec.place);
    }
    keys.emplace_back("tokenizer.ggml.model", std::string("llama"));
    keys.emplace_back("tokenizer.ggml.pre", std::string("default"));
    add_gguf_vocabulary(spec, rows, keys);
    std::vector<float> scores = spec.scores.empty() ? scores_from_merges(spec) : spec.scores;
    scores.resize(rows, kUnreachableScore);
    keys.emplace_back("tokenizer.ggml.scores", std::move(scores));
    keys.emplace_back("tokenizer.ggml.add_space_prefix", rule.adds_prefix);
  }
  add_gguf_special(spec, keys);
  return keys;
}

}  // namespace puzzle
