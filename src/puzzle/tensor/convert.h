// Between stored bytes and tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/formats/dtype.h"

namespace puzzle {

// A tensor of `shape` from stored bytes. `type` kF64, kF32, kF16 or kBF16 and of equal scalar type
// as wanted: the result shares the bytes, kept alive by `owner` (do not write to it); otherwise it
// is converted or dequantised into memory of its own. `want` is kFloat, kHalf or kBFloat16, or
// kDouble where that is stored. Throws Error(kFormat) with `place` where the byte count does not
// match or the type has no decoder.
[[nodiscard]] at::Tensor tensor_from_bytes(DType type, const std::vector<std::int64_t>& shape,
                                           std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner, c10::ScalarType want,
                                           const std::string& place);

// The bytes of a contiguous CPU tensor; the tensor must outlive the view.
[[nodiscard]] std::span<const std::byte> tensor_bytes(const at::Tensor& tensor);

[[nodiscard]] DType dtype_of(c10::ScalarType type);
[[nodiscard]] c10::ScalarType scalar_type_of(DType type);  // floats, kI32 and kI64 only

}  // namespace puzzle
