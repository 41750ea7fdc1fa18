// GGUF keys <-> ModelSpec, for the architectures `llama`, `qwen2`, `qwen3` (read), `deci` and
// `openelm` (read, written).
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/dtype.h"
#include "puzzle/formats/gguf.h"

namespace puzzle {

// Reads general.architecture llama, qwen2, qwen3, deci or openelm; anything else is refused by
// name, and so are keys that change the function computed (experts, logit scales, …) and tensors
// that have no place in the model. A sliding window ends the context (ModelSpec::context_limit).
// Looks at the tensors where keys leave something open:
//   tied head    no output.weight; always in openelm
//   biases       all of q, k, v in every GQA layer or none (the same for o, and for gate, up, down)
//   q, k norms   qwen3 and openelm have them in every layer
//   RoPE         rope_freqs.weight = llama3 scaling with exactly these divisors; the usual settings
//                are filled in beside them where they give the same numbers
//   rewrites of lowering.h are recognised by their numbers and undone: FFN linear (its matrix is
//   ffn_up.weight), FFN none, attention none (deci: in the first layer). Dropped layers leave no
//   trace.
// Throws Error(kFormat).
[[nodiscard]] ModelSpec read_gguf_config(const GgufFile& file);

// Rows of q, k and v in one matrix, one below the other: blk.N.attn_qkv.weight.
[[nodiscard]] bool has_fused_attention(const GgufFile& file);
// Whether the rows of q and k are interleaved within each head (docs/formats.md), as llama.cpp
// wants them where its rotary embedding is not half-split.
[[nodiscard]] bool has_interleaved_rotary_rows(const GgufFile& file);

// The keys of docs/formats.md for a child (not lowered: this does it) in an architecture that
// is_gguf_target(), and the tensor rope_freqs.weight where RoPE is of kind llama3. `matrix` is the
// type of most matrices (general.file_type). Neither tokenizer keys nor other tensors. Throws
// Error(kUsage) with what refusal() says.
void write_gguf_config(ExportTarget target, const ModelSpec& spec, DType matrix,
                       GgufWriter& writer);

// llama3 scaling as the rope_freqs.weight tensor [E / 2]: what each frequency is divided by
// (docs/formats.md): rope.frequency_divisors if given, else from the settings. Also used by the
// native decoder.
[[nodiscard]] std::vector<float> llama3_frequency_divisors(const RopeSpec& rope,
                                                           std::int64_t head_dim);

// Fills in the usual llama3 settings (low 1, high 4, original context a power of two) if they give
// rope.frequency_divisors to 1e-5, else sets original_context = 0.
void find_llama3_settings(RopeSpec& rope, std::int64_t head_dim);

}  // namespace puzzle
