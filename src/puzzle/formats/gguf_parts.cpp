// Split GGUF files (docs/formats.md): NAME-00001-of-0000N.gguf, written by llama-gguf-split. Keys
// stand in the first part; every part has split.no (from 0), split.count, and tensors of its own.
#include <cstddef>
#include <string>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/formats/gguf.h"

namespace puzzle {
namespace {

constexpr std::int64_t kMaxParts = 65535;  // split.count is a u16

std::string part_suffix(std::int64_t part, std::int64_t parts) {
  return fmt::format("-{:05}-of-{:05}.gguf", part + 1, parts);
}

}  // namespace

void GgufFile::add_parts(std::int64_t parts) {
  const std::string place = path().string();
  const std::int64_t number = int_value("split.no");
  if (parts > kMaxParts || number < 0 || number >= parts) {
    fail(ErrorKind::kFormat, "{}: says that it is part {} of {}, expected one of at most {}", place,
         number, parts, kMaxParts);
  }
  const std::string suffix = part_suffix(number, parts);
  if (!place.ends_with(suffix)) {
    fail(
        ErrorKind::kFormat,
        "{}: is one of {} parts of a split file, which are found by their names; expected one that "
        "ends with {}",
        place, parts, suffix);
  }
  const std::string stem = place.substr(0, place.size() - suffix.size());
  if (number != 0) {
    fail(ErrorKind::kFormat, "{}: is part {} of {} of a split file; open its first part {}", place,
         number + 1, parts, stem + part_suffix(0, parts));
  }
  for (std::int64_t i = 1; i < parts; ++i) {
    GgufFile part;
    part.read(stem + part_suffix(i, parts));
    if (part.int_value("split.no") != i || part.int_value("split.count") != parts) {
      fail(ErrorKind::kFormat, "{}: says that it is part {} of {}, expected {} of {}",
           part.path().string(), part.int_value("split.no"), part.int_value("split.count"), i,
           parts);
    }
    for (StoredTensor& tensor : part.tensors_) {
      if (!index_.emplace(tensor.name, tensors_.size()).second) {
        fail(ErrorKind::kFormat, "{}: the tensor {} stands in an earlier part, too",
             part.path().string(), tensor.name);
      }
      tensors_.push_back(std::move(tensor));
    }
    files_.push_back(part.path());
  }
  const std::int64_t expected = int_value("split.tensors.count", std::ssize(tensors_));
  if (std::ssize(tensors_) != expected) {
    fail(ErrorKind::kFormat, "{}: split.tensors.count is {}, but the {} parts hold {} tensors",
         place, expected, parts, tensors_.size());
  }
}

}  // namespace puzzle
