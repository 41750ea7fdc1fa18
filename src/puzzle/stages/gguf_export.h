// A model as a GGUF file of llama.cpp's architecture `deci` or `openelm`, with the exact rewrites
// of lowering.h.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/cost.h"
#include "puzzle/model/weights.h"

namespace puzzle {

struct GgufExport {
  std::string name;                        // general.name
  std::string license;                     // general.license; empty = none known
  std::string parent_name;                 // general.base_model.0.name; empty = not written
  std::filesystem::path tokenizer_source;  // the parent: a folder, a .gguf or a llama2.c checkpoint
  WeightTypes types;                       // matrix and embedding: those of can_quantize()
  ExportTarget target = ExportTarget::kDeci;  // an is_gguf_target()
  std::string content_key = {};  // puzzle.content_key, which says what was exported; empty = none
};

// deci: rows of q and k are interleaved for llama.cpp's rotary embedding; openelm: q, k and v stand
// in one matrix. Norms and biases are F32; a
// matrix whose rows do not fill blocks has another type (stored_dtype()). The file appears by
// rename. Throws Error(kUsage) where the target cannot hold the model (refusal()), Error(kIo).
void write_model_gguf(const std::filesystem::path& path, const ModelWeights& model,
                      const GgufExport& options);

// What a matrix decodes to after it was stored as `wanted`, or as stored_dtype() has it; a vector
// is taken as one row.
[[nodiscard]] at::Tensor stored_values(const at::Tensor& tensor, DType wanted);

// "gguf" or "gguf-openelm".
[[nodiscard]] bool is_gguf_format(std::string_view format);
[[nodiscard]] bool has_gguf_format(const std::vector<std::string>& formats);
// The architecture of the GGUF among an export's formats: deci for "gguf", openelm for
// "gguf-openelm", nothing without either. Throws Error(kUsage) for both, which hold no model in
// common.
[[nodiscard]] std::optional<ExportTarget> gguf_format_target(
    const std::vector<std::string>& formats);

// The names of the types that matrices are written in: "f32", …, "q6_k".
[[nodiscard]] const std::vector<std::string>& gguf_type_names();

// Matrix and embedding types by the name of a quantisation, one of gguf_type_names() or
// "like-parent": where the parent is a GGUF, those of most of its layers' bytes and of its
// embedding, else F16. Embeddings of Q4_0, Q4_1 and Q5_0 are Q8_0 and those of Q4_K are Q6_K, as
// llama.cpp's own quantiser leaves them in small models. Throws Error(kUsage) for another name, and
// for like-parent where the parent's type is read but not written (Q5_K and the like).
[[nodiscard]] WeightTypes gguf_weight_types(const std::string& name,
                                            const std::filesystem::path& parent);

}  // namespace puzzle
