// Hugging Face tokenizer files: tokenizer.json with tokenizer_config.json beside it.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// `path` is a model folder or a tokenizer.json; the other files are looked for beside it.
//
// What is read: tokenizer.json (type BPE); from tokenizer_config.json (or special_tokens_map.json)
// the BOS, EOS and padding tokens, the chat template (also chat_template.jinja) and, for the
// tokenizer classes of Llama 1 and 2, add_bos_token and add_eos_token, which override the template
// there; ids in config.json where no other file names the tokens.
// Throws Error(kIo), Error(kFormat).
[[nodiscard]] TokenizerSpec load_hf_tokenizer(const std::filesystem::path& path);

// tokenizer.json, tokenizer_config.json and special_tokens_map.json for a tokenizer that came from
// elsewhere, by file name. Piece scores become merges, best piece first, as Hugging Face's own
// conversion does. Throws Error(kFormat) for a token that is not valid UTF-8.
[[nodiscard]] std::map<std::string, std::string> make_hf_files(const TokenizerSpec& spec);

}  // namespace puzzle
