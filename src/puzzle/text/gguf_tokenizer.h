// Tokenizers inside GGUF files (tokenizer.ggml.*), both ways.
//
// Model "gpt2" is byte-level BPE with the pre-tokenizer named by tokenizer.ggml.pre; "llama" is
// SentencePiece-style BPE by scores. Ids are those of llama.cpp, with two exceptions: Unicode NFC
// is applied where the original tokenizer does (qwen2), and an ordinary token never turns into a
// control token because of how it looks ("</s>").
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "puzzle/formats/gguf.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// Throws Error(kFormat): a key missing or of a wrong type, another model, an unknown
// tokenizer.ggml.pre (the message lists the known ones).
[[nodiscard]] TokenizerSpec load_gguf_tokenizer(const GgufFile& file);

using GgufKeys = std::vector<std::pair<std::string, GgufValue>>;

// The tokenizer.* keys for a tokenizer that came from elsewhere, with `num_tokens` tokens (at least
// the vocabulary's; the rest and any hole becomes an unused "[PADn]"), since llama.cpp wants as
// many tokens as the embedding has rows. For SentencePiece-style merges the score of a piece is
// minus the rank of the first merge that yields it, -1e9 if none does. Throws Error(kFormat) if
// llama.cpp has no name for the pre-tokenizer.
[[nodiscard]] GgufKeys make_gguf_keys(const TokenizerSpec& spec, std::int64_t num_tokens);

}  // namespace puzzle
