// Single tensors in and out of safetensors files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "puzzle/formats/safetensors.h"

namespace puzzle {

// To be written under `name` in its own numeric type; the tensor is held until it is.
[[nodiscard]] TensorToWrite tensor_to_write(const std::string& name, const at::Tensor& tensor);

// A stored tensor in `type`, on the CPU; one of that type stays in the mapped file. `place`: of the
// file. Throws Error(kFormat) for another shape than `shape`.
[[nodiscard]] at::Tensor read_tensor(const StoredTensor& stored,
                                     const std::vector<std::int64_t>& shape, c10::ScalarType type,
                                     const std::string& place);

// The tensor `name` in the type and on the device of `like`. Throws Error(kFormat) where it is
// missing or has another shape than `like`.
[[nodiscard]] at::Tensor read_tensor_like(const SafetensorsFile& file, const std::string& name,
                                          const at::Tensor& like);

}  // namespace puzzle
