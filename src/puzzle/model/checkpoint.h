// Models on disk <-> ModelWeights.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "puzzle/model/weights.h"

namespace puzzle {

// What a path holds, without its tensors: a .gguf file, a Hugging Face folder, or a checkpoint of
// llama2.c (*.bin, fp32; the tiny test model). Throws Error(kIo) or Error(kFormat).
[[nodiscard]] ModelSpec load_model_spec(const std::filesystem::path& path);

// Tensors in `type` (kFloat, kHalf, kBFloat16) on the CPU. Plain tensors of that type stay in the
// mapped file, anything else is dequantised once; every tensor is in Hugging Face's layout (GGUF's
// interleaved Q/K rows are put back). Throws Error(kFormat) naming tensor, shape found and shape
// expected.
[[nodiscard]] ModelWeights load_model(const std::filesystem::path& path, c10::ScalarType type);

// Key of everything load_model depends on.
[[nodiscard]] std::string model_content_key(const std::filesystem::path& path);

// A file or folder from which load_tokenizer reads the model's tokenizer.
[[nodiscard]] std::filesystem::path tokenizer_path(const std::filesystem::path& path);

// Undoes, or applies, GGUF's interleaving of rotary rows (docs/formats.md): weight [heads·E, …] or
// bias.
[[nodiscard]] at::Tensor from_interleaved_rows(const at::Tensor& tensor, std::int64_t head_dim);
[[nodiscard]] at::Tensor to_interleaved_rows(const at::Tensor& tensor, std::int64_t head_dim);

// model.safetensors of the weights, tied heads left out, stored in `type`; `metadata` goes into the
// header.
void save_weights(const std::filesystem::path& file, const ModelWeights& weights,
                  c10::ScalarType type, const std::map<std::string, std::string>& metadata);

}  // namespace puzzle
