// llama2.c's tok*.bin: SentencePiece-style BPE by scores.
//
//   int32 longest token in bytes | per id, to the end: float32 score | int32 bytes | text
//
// The file spells spaces as spaces; here they become U+2581, so that the result is an ordinary
// SentencePiece-style tokenizer (which writes a literal U+2581 in the text as a space). Ids 0, 1, 2
// are unknown, BOS and EOS, 3 to 258 the bytes. BOS is added, as in llama2.c's run.c.
#pragma once

#include <filesystem>

#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// Throws Error(kIo), Error(kFormat).
[[nodiscard]] TokenizerSpec load_llama2c_tokenizer(const std::filesystem::path& path);

}  // namespace puzzle
