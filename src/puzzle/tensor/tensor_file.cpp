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

at::Tensor read_tensor_like(const SafetensorsFile& file, const std::string& name,
                            const at::Tensor& like) {
  const StoredTensor& stored = file.tensor(name);
  if (stored.shape != like.sizes().vec()) {
    fail(ErrorKind::kFormat, "{}: {}: shape [{}], expected [{}]; is the file of another run?",
         file.path().string(), name, fmt::join(stored.shape, ", "),
         fmt::join(like.sizes().vec(), ", "));
  }
  return tensor_from_bytes(stored.dtype, stored.shape, stored.bytes, stored.file,
                           like.scalar_type(), file.path().string() + ": " + name)
      .to(like.device());
}

}  // namespace puzzle
