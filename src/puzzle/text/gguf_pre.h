// The names that llama.cpp gives to pre-tokenizers (tokenizer.ggml.pre).
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

struct GgufPreTokenizer {
  std::string_view name;      // of tokenizer.ggml.pre
  bool digits_first = false;  // cuts out every digit before applying `pattern`
  std::string_view pattern;   // name in known_patterns()
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // where tokenizer.ggml.add_bos_token is absent
};

// Several names may stand for one rule; the first of them is the one to write.
[[nodiscard]] std::span<const GgufPreTokenizer> gguf_pre_tokenizers();

[[nodiscard]] std::vector<NormalizerStep> normalizer_of(const GgufPreTokenizer& pre);
[[nodiscard]] std::vector<PreTokenizerStep> steps_of(const GgufPreTokenizer& pre);

// The entry that does what the spec's steps do, NFC included (which our reader applies by the name,
// and llama.cpp never); null if there is none.
[[nodiscard]] const GgufPreTokenizer* find_gguf_pre(const TokenizerSpec& spec);

}  // namespace puzzle
