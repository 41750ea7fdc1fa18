// llama2.c checkpoints (legacy fp32 version 0): the format of the tiny trained model in the tests.
//
//   i32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: untied head), seq_len
//   f32 embedding, attention norms of all layers, wq, wk, wv, wo, FFN norms, w1, w2, w3, final
//   norm, two unused rotary tables [seq_len, head_dim / 2], the head where untied
#pragma once

#include <filesystem>

#include "puzzle/model/weights.h"

namespace puzzle {

// Throw Error(kFormat) for sizes that do not match the file.
[[nodiscard]] ModelSpec read_llama2c_spec(const std::filesystem::path& path);
[[nodiscard]] ModelWeights load_llama2c(const std::filesystem::path& path);

// The one tok*.bin beside the checkpoint. Throws Error(kIo) if there is none or more than one.
[[nodiscard]] std::filesystem::path llama2c_tokenizer_path(const std::filesystem::path& path);

}  // namespace puzzle
