#include "puzzle/tensor/convert.h"

#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/formats/gguf_quant.h"

namespace puzzle {
namespace {

bool is_plain(DType type) {
  return type == DType::kF64 || type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

}  // namespace

at::Tensor tensor_from_bytes(DType type, const std::vector<std::int64_t>& shape,
                             std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                             c10::ScalarType want, const std::string& place) {
  const std::uint64_t count = num_elements(shape, place);
  const std::uint64_t expected = byte_size(type, count, place);
  if (bytes.size() != expected) {
    fail(ErrorKind::kFormat, "{}: {} bytes, expected {} for its shape and type", place,
         bytes.size(), expected);
  }
  if (is_plain(type) && scalar_type_of(type) == want) {
    const auto alignment = c10::elementSize(want);
    auto* data = const_cast<std::byte*>(bytes.data());
    if (reinterpret_cast<std::uintptr_t>(data) % alignment == 0) {
      return at::from_blob(
          data, shape, [owner = std::move(owner)](void*) {}, at::TensorOptions().dtype(want));
    }
  }
  if (!can_dequantize(type)) {
    fail(ErrorKind::kFormat, "{}: its type {} cannot be read; expected one of {}", place,
         dtype_name(type), kDequantizedTypes);
  }
  at::Tensor result = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  dequantize(type, bytes, {result.data_ptr<float>(), count});
  return want == at::kFloat ? result : result.to(want);
}

std::span<const std::byte> tensor_bytes(const at::Tensor& tensor) {
  PUZZLE_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(),
               "only contiguous CPU tensors have bytes to look at");
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

DType dtype_of(c10::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return DType::kF64;
    case at::kFloat:
      return DType::kF32;
    case at::kHalf:
      return DType::kF16;
    case at::kBFloat16:
      return DType::kBF16;
    case at::kInt:
      return DType::kI32;
    case at::kLong:
      return DType::kI64;
    default:
      fail(ErrorKind::kInternal, "no stored type for {}", c10::toString(type));
  }
}

c10::ScalarType scalar_type_of(DType type) {
  switch (type) {
    case DType::kF64:
      return at::kDouble;
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    case DType::kI32:
      return at::kInt;
    case DType::kI64:
      return at::kLong;
    default:
      fail(ErrorKind::kInternal, "no tensor type for a quantised or unknown stored type");
  }
}

}  // namespace puzzle
