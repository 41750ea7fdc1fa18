// GGUF keys <-> ModelSpec, for the architectures `llama` (read) and `deci` (read, written).
#pragma once

#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/gguf.h"

namespace puzzle {

// Reads general.architecture llama or deci; anything else is refused by name. Looks at the tensor list
// where keys leave something open (tied head, biases, rope_freqs, linear layers). Throws Error(kFormat).
[[nodiscard]] ModelSpec read_gguf_config(const GgufFile& file);

// The keys of formats.md 5.1 for a lowered child (see lowering.h), without the tokenizer's.
void write_deci_config(const ModelSpec& spec, GgufWriter& writer);

// llama3 scaling as the rope_freqs.weight tensor [E / 2]: what each frequency is divided by
// (formats.md 5.2). Also used by the native decoder.
[[nodiscard]] std::vector<float> llama3_frequency_divisors(const RopeSpec& rope, std::int64_t head_dim);

}  // namespace puzzle
