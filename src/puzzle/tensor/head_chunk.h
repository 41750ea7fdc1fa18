// What losses and gradients behind the vocabulary projection share.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "puzzle/tensor/head_loss.h"

namespace puzzle {

// log-softmax of hidden · headᵀ of tokens [begin, begin + count), fp32, [count, V], in the memory
// of the logits. Call it without autograd.
[[nodiscard]] at::Tensor chunk_log_probs(const HeadInput& input, std::int64_t begin,
                                         std::int64_t count);

}  // namespace puzzle
