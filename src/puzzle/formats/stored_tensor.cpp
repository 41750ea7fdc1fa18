#include "puzzle/formats/stored_tensor.h"

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {

void fail_missing_tensor(const std::string& place, std::string_view name,
                         const std::vector<std::string>& names) {
  const std::string close = nearest(name, names);
  fail(ErrorKind::kFormat, "{}: there is no tensor {}{}", place, name,
       close.empty() ? "" : "; the nearest name is " + close);
}

void write_tensor_bytes(AtomicFile& file, const TensorToWrite& tensor, std::uint64_t expected) {
  std::uint64_t written = 0;
  const auto write = [&](std::span<const std::byte> piece) {
    PUZZLE_CHECK(piece.size() <= expected - written,
                 "tensor {} gives more than the {} bytes of its shape", tensor.name, expected);
    file.write(piece);
    written += piece.size();
  };
  if (tensor.produce) {
    tensor.produce(write);
  } else {
    write(tensor.bytes);
  }
  PUZZLE_CHECK(written == expected, "tensor {} gives {} bytes, its shape needs {}", tensor.name,
               written, expected);
}

}  // namespace puzzle
