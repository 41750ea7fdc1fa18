// A tokenizer as plain data: what every file format is read into, what the encoder is built from
// and what the exporters write. The words are those of Hugging Face's tokenizer.json.
//
//   text -> added tokens cut out -> normalizer -> pre-tokenizer -> BPE -> template
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "puzzle/text/unicode.h"

namespace puzzle {

// The numbers of tokenizer.ggml.token_type.
enum class TokenKind : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,  // padding of the vocabulary
  kByte = 6,    // "<0x0A>"
};

struct VocabToken {
  std::string text;  // as the vocabulary spells it; empty: no token has this id
  TokenKind kind = TokenKind::kNormal;
};

// A token that is looked for in the text before anything else happens to it.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // not next to a word character
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for after the normalizer
  bool special = false;      // control token
};

struct UnicodeNormalizer {
  NormalForm form = NormalForm::kNfc;
};
struct PrependNormalizer {
  std::string text;  // put before every non-empty segment
};
struct ReplaceNormalizer {
  std::string pattern;  // literal, not empty
  std::string content;
};
using NormalizerStep = std::variant<UnicodeNormalizer, PrependNormalizer, ReplaceNormalizer>;

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitStep {
  std::string pattern;
  bool is_regex = false;  // then one of known_patterns() in pattern.h
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};
struct DigitsStep {
  bool individual = false;
};
// Splits by GPT-2's pattern if asked, and makes the vocabulary one of bytes. Always the last step.
struct ByteLevelStep {
  bool add_prefix_space = false;
  bool use_regex = true;
};
enum class PrependScheme { kAlways, kFirst, kNever };
struct MetaspaceStep {
  std::string replacement = "\u2581";  // for every space
  PrependScheme prepend = PrependScheme::kAlways;
  bool split = true;  // before every replacement
};
using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep, MetaspaceStep>;

// How a token's text becomes bytes.
struct DecoderSpec {
  bool byte_level = false;       // the byte alphabet
  bool byte_fallback = false;    // "<0x0A>" is that byte
  std::string space_spelling;    // becomes a space; empty: nothing does
  std::int32_t strip_left = 0;   // spaces taken from the start of the whole text
  bool metaspace_first = false;  // HF's Metaspace decoder: the first token loses all its spaces
};

struct TokenizerSpec {
  std::string place;               // the file, for messages
  std::vector<VocabToken> tokens;  // by id
  // Ids of the parts, best first; or, if `scores` is not empty, any two tokens whose texts
  // together are a token merge, highest score first.
  std::vector<std::pair<std::int32_t, std::int32_t>> merges;
  std::vector<float> scores;  // by id

  bool byte_level = false;     // texts are spelled in the byte alphabet
  bool byte_fallback = false;  // an unknown character becomes its <0xNN> tokens
  bool fuse_unk = false;       // neighbouring unknown characters are one unknown token
  bool ignore_merges = false;  // a whole pre-token found in the vocabulary is not merged up

  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  DecoderSpec decoder;
  std::vector<std::int32_t> prefix;  // ids that add_special puts before …
  std::vector<std::int32_t> suffix;  // … and after

  std::optional<std::int32_t> unk;  // used by the encoder
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::optional<std::int32_t> pad;
  std::string chat_template;
};

// Lets an unordered_map of strings be asked with a string_view.
struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
using TokenIndex = std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>>;

// The id of a token by its text, over a spec's tokens. The first of equal texts counts.
[[nodiscard]] TokenIndex index_tokens(const std::vector<VocabToken>& tokens);

// What BPE may start from or end up with: a normal or user-defined token with a text.
[[nodiscard]] bool is_piece(const VocabToken& token);

// The byte of "<0x0A>"; nothing for any other text.
[[nodiscard]] std::optional<std::uint8_t> parse_byte_token(std::string_view text);
[[nodiscard]] std::string byte_token(std::uint8_t byte);

// Ids in range, merges that exist, scores that are numbers. Throws Error(kFormat).
void check_spec(const TokenizerSpec& spec);

// 32 hexadecimal digits over all of it but `place` and the chat template.
[[nodiscard]] std::string spec_key(const TokenizerSpec& spec);

}  // namespace puzzle
