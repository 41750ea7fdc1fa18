#include "puzzle/stages/gguf_in_engine.h"

#include <ATen/ATen.h>

#include "puzzle/formats/gguf.h"
#include "puzzle/tensor/convert.h"

namespace puzzle {

at::Tensor gguf_head(const std::filesystem::path& file) {
  const GgufFile gguf(file);
  const StoredTensor* output = gguf.find_tensor("output.weight");
  const StoredTensor& head = output != nullptr ? *output : gguf.tensor("token_embd.weight");
  return tensor_from_bytes(head.dtype, head.shape, head.bytes, head.file, at::kFloat,
                           file.string());
}

at::Tensor engine_hidden_states(const LlamaServer& server, std::span<const std::int32_t> tokens) {
  const HiddenStates hidden = server.hidden_states(tokens);
  return at::tensor(hidden.values, at::TensorOptions(at::kFloat))
      .reshape({hidden.num_tokens, hidden.width});
}

}  // namespace puzzle
