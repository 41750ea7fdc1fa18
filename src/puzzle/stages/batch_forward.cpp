#include "puzzle/stages/batch_forward.h"

#include <ATen/ATen.h>

namespace puzzle {

PassContext batch_pass(const Geometry& geometry, const TokenBatch& batch, c10::ScalarType type,
                       const c10::Device& device) {
  PassContext pass = make_pass(geometry, batch.tokens_BT.size(1), type, device);
  pass.mask = batch.attention_mask();
  return pass;
}

PassContext batch_pass(const Geometry& geometry, const TokenBatch& batch, const at::Tensor& like) {
  return batch_pass(geometry, batch, like.scalar_type(), like.device());
}

at::Tensor final_rows(const ModelWeights& model, const Geometry& geometry, const at::Tensor& x_BTD,
                      const PassContext& pass, std::int64_t first) {
  const at::Tensor last =
      apply_layers(model, geometry, x_BTD, pass, first, model.spec.num_layers());
  return final_hidden(model, last).reshape({-1, last.size(-1)});
}

}  // namespace puzzle
