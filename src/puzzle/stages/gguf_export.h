// A model as a GGUF file of llama.cpp's architecture `deci`, with the exact rewrites of lowering.h.
#pragma once

#include <filesystem>
#include <string>

#include "puzzle/arch/cost.h"
#include "puzzle/model/weights.h"

namespace puzzle {

struct GgufExport {
  std::string name;                        // general.name
  std::string license;                     // general.license; empty = none known
  std::string parent_name;                 // general.base_model.0.name; empty = not written
  std::filesystem::path tokenizer_source;  // the parent: a folder, a .gguf or a llama2.c checkpoint
  WeightTypes types;                       // matrix and embedding: F32, F16, BF16, Q8_0, Q4_0, Q4_1
  std::string content_key = {};  // puzzle.content_key, which says what was exported; empty = none
};

// Rows of q and k are interleaved for llama.cpp's rotary embedding; norms and biases are F32; a
// matrix whose rows do not fill blocks is F16 (stored_dtype()). The file appears by rename. Throws
// Error(kUsage) where `deci` cannot hold the model (refusal()), Error(kIo).
void write_deci_gguf(const std::filesystem::path& path, const ModelWeights& model,
                     const GgufExport& options);

// Matrix and embedding types by the name of a quantisation: "f32", "f16", "bf16", "q8_0", "q4_0",
// "q4_1"; "like-parent": where the parent is a GGUF, those of most of its layers' bytes and of its
// embedding, else F16. Embeddings of the 4-bit types are Q8_0, as llama.cpp's own quantiser
// leaves them in small models. Throws Error(kUsage) for another name, and for like-parent where the
// parent's type is read but not written (Q4_K and the like).
[[nodiscard]] WeightTypes gguf_weight_types(const std::string& name,
                                            const std::filesystem::path& parent);

}  // namespace puzzle
