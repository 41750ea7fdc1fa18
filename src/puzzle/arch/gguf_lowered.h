// Recognises in a GGUF file what lowering.h made of a block: a part of gguf_config.
#pragma once

#include <cstdint>

#include "puzzle/arch/block_spec.h"
#include "puzzle/arch/lowering.h"
#include "puzzle/formats/gguf.h"

namespace puzzle {

// The block that the file's layer computes, given its shapes: attention linear with a zero matrix
// in layer 0 (openelm: one KV head whose output matrix is zero) is none, an FFN of kZeroFfnWidth
// zero channels is none, the SwiGLU of LinearFfnForm is linear. Reads whole tensors only where
// shapes and biases make one of these likely. Anything less than exact stays what its shapes say.
[[nodiscard]] BlockSpec undo_lowering(ExportTarget target, const GgufFile& file, std::int64_t layer,
                                      std::int64_t hidden_size, const BlockSpec& written);

}  // namespace puzzle
