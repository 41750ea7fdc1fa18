// Forward passes over batches of a part's windows.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "puzzle/data/token_split.h"
#include "puzzle/model/decoder.h"

namespace puzzle {

// Positions 0, 1, … and the batch's document mask, in the numeric type and on the device of `like`.
[[nodiscard]] PassContext batch_pass(const Geometry& geometry, const TokenBatch& batch,
                                     const at::Tensor& like);
[[nodiscard]] PassContext batch_pass(const Geometry& geometry, const TokenBatch& batch,
                                     c10::ScalarType type, const c10::Device& device);

// Final hidden states [B·T, D], as head_loss.h takes them, from those that enter layer `first`.
[[nodiscard]] at::Tensor final_rows(const ModelWeights& model, const Geometry& geometry,
                                    const at::Tensor& x_BTD, const PassContext& pass,
                                    std::int64_t first = 0);

}  // namespace puzzle
