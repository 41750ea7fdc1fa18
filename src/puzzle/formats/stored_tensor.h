// A tensor inside a mapped file, and one to be written: the same for safetensors and GGUF.
//
// Shapes are row-major with the outermost dimension first, as in Hugging Face files: [out, in] for
// a linear layer. GGUF stores them reversed ("ne"); its reader and writer turn them round.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/base/file.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;        // inside *file; may be unaligned in safetensors
  std::shared_ptr<const MappedFile> file;  // keep a copy of it as long as `bytes` is used
};

// Takes the next bytes of a tensor, in order.
using ByteSink = std::function<void(std::span<const std::byte>)>;

// Either `bytes`, which must live until the file is written, or `produce`, called once when the
// tensor's turn comes; it hands its bytes to the sink in pieces of any size. Another total than
// dtype and shape say is Error(kInternal).
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::function<void(const ByteSink&)> produce;
};

// For readers: throws Error(kFormat) that `place` has no tensor `name`, with the nearest of
// `names`.
[[noreturn]] void fail_missing_tensor(const std::string& place, std::string_view name,
                                      const std::vector<std::string>& names);

// For writers: writes the bytes of one tensor, checked to be `expected` bytes.
void write_tensor_bytes(AtomicFile& file, const TensorToWrite& tensor, std::uint64_t expected);

}  // namespace puzzle
