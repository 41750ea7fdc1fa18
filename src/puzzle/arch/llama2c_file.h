// llama2.c checkpoints (legacy fp32 version 0): the format of the tiny trained model in the tests.
//
//   i32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: untied head), seq_len
//   f32 embedding, attention norms of all layers, wq, wk, wv, wo, FFN norms, w1, w2, w3, final
//   norm, two unused rotary tables [seq_len, head_dim / 2], the head where untied
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/stored_tensor.h"

namespace puzzle {

class Llama2cFile {
 public:
  // Throws Error(kIo) if it cannot be opened, Error(kFormat) for a header of impossible sizes and
  // for a file that is not exactly as long as they say.
  explicit Llama2cFile(const std::filesystem::path& path);

  [[nodiscard]] const ModelSpec& spec() const { return spec_; }
  // By the name a Hugging Face folder gives it, inside the mapped file; rows of q and k are
  // interleaved as in GGUF. Throws Error(kFormat), naming the file and the nearest name.
  [[nodiscard]] const StoredTensor& tensor(std::string_view name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  ModelSpec spec_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

// The one tok*.bin beside the checkpoint. Throws Error(kIo) if there is none or more than one.
[[nodiscard]] std::filesystem::path llama2c_tokenizer_path(const std::filesystem::path& path);

}  // namespace puzzle
