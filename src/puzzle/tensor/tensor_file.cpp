#include "puzzle/tensor/tensor_file.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "puzzle/base/error.h"
#include "puzzle/tensor/convert.h"

namespace puzzle {

TensorToWrite tensor_to_write(const std::string& name, const at::Tensor& tensor) {
  TensorToWrite entry;
  entry.name = name;
  entry.dtype = dtype_of(tensor.scalar_type());
  entry.shape = tensor.sizes().vec();
  entry.produce = [tensor](const ByteSink& sink) {
    sink(tensor_bytes(tensor.detach().to(at::kCPU).contiguous()));
  };
  return entry;
}

at::Tensor read_tensor(const StoredTensor& stored, const std::vector<std::int64_t>& shape,
                       c10::ScalarType type, const std::string& place) {
  if (stored.shape != shape) {
    fail(ErrorKind::kFormat,
         "{}: tensor {} is [{}], expected [{}]; is the file of another model, or another run?",
         place, stored.name, fmt::join(stored.shape, ", "), fmt::join(shape, ", "));
  }
  return tensor_from_bytes(stored.dtype, stored.shape, stored.bytes, stored.file, type,
                           place + ": tensor " + stored.name);
}

at::Tensor read_tensor_like(const SafetensorsFile& file, const std::string& name,
                            const at::Tensor& like) {
  return read_tensor(file.tensor(name), like.sizes().vec(), like.scalar_type(),
                     file.path().string())
      .to(like.device());
}

}  // namespace puzzle
