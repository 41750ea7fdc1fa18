// What an exported model carries so that other engines tokenise as the parent does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "puzzle/text/gguf_tokenizer.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// Reads what load_tokenizer accepts, as data. Throws as load_tokenizer.
[[nodiscard]] TokenizerSpec load_tokenizer_spec(const std::filesystem::path& model);

// Content of the tokenizer files of a Hugging Face folder by name: those of a Hugging Face parent
// byte for byte, for other parents made from their tokenizer. Throws as load_tokenizer, and
// Error(kFormat) where tokenizer.json cannot express it.
[[nodiscard]] std::map<std::string, std::string> load_hf_tokenizer_files(
    const std::filesystem::path& model);

// The tokenizer.* keys of a GGUF file whose embedding has `num_tokens` rows: those of a GGUF parent
// as they are, for other parents made from their tokenizer (see make_gguf_keys). Throws as
// load_tokenizer, and Error(kFormat) where llama.cpp cannot express it or the parent's own keys
// have another number of tokens.
[[nodiscard]] GgufKeys load_gguf_tokenizer_keys(const std::filesystem::path& model,
                                                std::int64_t num_tokens);

}  // namespace puzzle
