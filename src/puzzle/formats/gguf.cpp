#include "puzzle/formats/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "puzzle/base/error.h"
#include "puzzle/formats/gguf_types.h"

namespace puzzle {
namespace {

constexpr std::uint32_t kOldestVersion = 2;
constexpr std::size_t kSmallestKeyBytes = 8 + 4 + 1;         // empty name, type, one-byte value
constexpr std::size_t kSmallestTensorBytes = 8 + 4 + 4 + 8;  // empty name, rank 0

// Well-formed UTF-8 without NUL: names end up in messages, JSON and C strings.
bool is_clean_name(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    if (byte == 0 || (byte >= 0x80 && byte < 0xc2) || byte > 0xf4 || text.size() - i < length) {
      return false;
    }
    std::uint32_t code = length == 1 ? byte : byte & (0x7fU >> length);
    for (std::size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0U) != 0x80U) {
        return false;
      }
      code = (code << 6U) | (next & 0x3fU);
    }
    const bool is_overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    if (is_overlong || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff) {
      return false;
    }
    i += length;
  }
  return true;
}

// Walks over the bytes of a file; `what` names the thing being read in messages.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, std::string file)
      : bytes_(bytes), file_(std::move(file)) {}

  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] std::size_t position() const { return position_; }
  [[nodiscard]] std::size_t rest() const { return bytes_.size() - position_; }

  // Refuses a count that the rest of the file cannot hold, before anything is allocated for it.
  void check_count(std::uint64_t count, std::size_t smallest_bytes, const std::string& what) const {
    if (count > rest() / smallest_bytes) {
      fail(ErrorKind::kFormat,
           "{}: {} claims {} items at byte {}, the {} bytes that follow cannot hold them; is the "
           "file complete?",
           file_, what, count, position_, rest());
    }
  }

  const std::byte* take(std::size_t size, const std::string& what) {
    if (size > rest()) {
      fail(ErrorKind::kFormat,
           "{}: {} at byte {} needs {} bytes, the file has {} left; is the file complete?", file_,
           what, position_, size, rest());
    }
    const std::byte* start = bytes_.data() + position_;
    position_ += size;
    return start;
  }

  template <class T>
  T number(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }

  bool boolean(const std::string& what) {
    const auto value = number<std::uint8_t>(what);
    if (value > 1) {
      fail(ErrorKind::kFormat, "{}: {} holds the bool {}, expected 0 or 1", file_, what, value);
    }
    return value == 1;
  }

  std::string text(const std::string& what) {
    const auto length = number<std::uint64_t>(what);
    check_count(length, 1, what);
    const auto size = static_cast<std::size_t>(length);
    return {reinterpret_cast<const char*>(take(size, what)), size};
  }

  std::string name(const std::string& what) {
    std::string value = text(what);
    if (value.empty() || !is_clean_name(value)) {
      fail(ErrorKind::kFormat, "{}: {} before byte {} is empty or not UTF-8", file_, what,
           position_);
    }
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string file_;
  std::size_t position_ = 0;
};

template <class T>
T read_scalar(GgufCursor& cursor, const std::string& what) {
  if constexpr (std::is_same_v<T, bool>) {
    return cursor.boolean(what);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return cursor.text(what);
  } else {
    return cursor.number<T>(what);
  }
}

template <class T>
std::vector<T> read_array(GgufCursor& cursor, std::uint64_t count, const std::string& what) {
  std::vector<T> values;
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
    cursor.check_count(count, std::is_same_v<T, bool> ? 1 : sizeof(std::uint64_t), what);
    for (std::uint64_t i = 0; i < count; ++i) {
      values.push_back(read_scalar<T>(cursor, what));
    }
  } else {
    cursor.check_count(count, sizeof(T), what);
    const auto size = static_cast<std::size_t>(count);
    const std::byte* start = cursor.take(size * sizeof(T), what);
    values.resize(size);
    if (size > 0) {
      std::memcpy(values.data(), start, size * sizeof(T));
    }
  }
  return values;
}

// Calls action.operator()<T>() with the C++ type of a GGUF type number.
template <class Action>
GgufValue with_gguf_type(std::uint32_t type, const GgufCursor& cursor, const std::string& what,
                         const Action& action) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return action.template operator()<std::uint8_t>();
    case GgufType::kI8:
      return action.template operator()<std::int8_t>();
    case GgufType::kU16:
      return action.template operator()<std::uint16_t>();
    case GgufType::kI16:
      return action.template operator()<std::int16_t>();
    case GgufType::kU32:
      return action.template operator()<std::uint32_t>();
    case GgufType::kI32:
      return action.template operator()<std::int32_t>();
    case GgufType::kF32:
      return action.template operator()<float>();
    case GgufType::kBool:
      return action.template operator()<bool>();
    case GgufType::kString:
      return action.template operator()<std::string>();
    case GgufType::kU64:
      return action.template operator()<std::uint64_t>();
    case GgufType::kI64:
      return action.template operator()<std::int64_t>();
    case GgufType::kF64:
      return action.template operator()<double>();
    case GgufType::kArray:
      fail(ErrorKind::kFormat, "{}: {} is an array of arrays, which is not supported",
           cursor.file(), what);
  }
  fail(ErrorKind::kFormat, "{}: {} has the value type {}, which GGUF does not define",
       cursor.file(), what, type);
}

GgufValue read_value(GgufCursor& cursor, const std::string& what) {
  const auto type = cursor.number<std::uint32_t>(what);
  if (type != static_cast<std::uint32_t>(GgufType::kArray)) {
    return with_gguf_type(type, cursor, what,
                          [&]<class T>() -> GgufValue { return read_scalar<T>(cursor, what); });
  }
  const auto element_type = cursor.number<std::uint32_t>(what);
  const auto count = cursor.number<std::uint64_t>(what);
  return with_gguf_type(element_type, cursor, what,
                        [&]<class T>() -> GgufValue { return read_array<T>(cursor, count, what); });
}

struct GgufCounts {
  std::uint64_t tensors = 0;
  std::uint64_t keys = 0;
};

GgufCounts read_start(GgufCursor& cursor) {
  const std::string what = "the start of the file";
  if (std::memcmp(cursor.take(4, what), "GGUF", 4) != 0) {
    fail(ErrorKind::kFormat, "{}: does not begin with \"GGUF\"; is it a GGUF file?", cursor.file());
  }
  const auto version = cursor.number<std::uint32_t>(what);
  if ((version & 0xffffU) == 0 && version != 0) {
    fail(ErrorKind::kFormat, "{}: is a big-endian GGUF file; convert it to little-endian",
         cursor.file());
  }
  if (version < kOldestVersion || version > kGgufVersion) {
    fail(ErrorKind::kFormat, "{}: is GGUF version {}, expected {} or {}; convert it anew",
         cursor.file(), version, kOldestVersion, kGgufVersion);
  }
  GgufCounts counts;
  counts.tensors = cursor.number<std::uint64_t>(what);
  counts.keys = cursor.number<std::uint64_t>(what);
  cursor.check_count(counts.tensors, kSmallestTensorBytes, "the number of tensors");
  cursor.check_count(counts.keys, kSmallestKeyBytes, "the number of keys");
  return counts;
}

struct TensorEntry {
  StoredTensor tensor;
  std::uint64_t offset = 0;  // in the data section
  std::uint64_t size_bytes = 0;
};

TensorEntry read_tensor_entry(GgufCursor& cursor) {
  TensorEntry entry;
  entry.tensor.name = cursor.name("a tensor name");
  const std::string what = "tensor " + entry.tensor.name;
  const std::string place = cursor.file() + ": " + what;
  if (entry.tensor.name.size() > kMaxGgufNameBytes) {
    fail(ErrorKind::kFormat, "{}: the name has {} bytes, at most {} are allowed", place,
         entry.tensor.name.size(), kMaxGgufNameBytes);
  }
  const auto rank = cursor.number<std::uint32_t>(what);
  if (rank > kMaxGgufRank) {
    fail(ErrorKind::kFormat, "{}: has {} dimensions, at most {} are allowed", place, rank,
         kMaxGgufRank);
  }
  for (std::uint32_t i = 0; i < rank; ++i) {
    entry.tensor.shape.push_back(cursor.number<std::int64_t>(what));
  }
  const auto type = cursor.number<std::uint32_t>(what);
  const std::optional<DType> dtype = find_ggml_dtype(type);
  if (!dtype.has_value()) {
    fail(ErrorKind::kFormat, "{}: has the ggml type {}, which is not known here", place, type);
  }
  entry.tensor.dtype = *dtype;
  const std::uint64_t elements = num_elements(entry.tensor.shape, place);
  const std::int64_t row_length = rank == 0 ? 1 : entry.tensor.shape.front();
  if (row_length % dtype_info(*dtype).block_elements != 0) {
    fail(ErrorKind::kFormat, "{}: rows of {} elements are not whole blocks of {}", place,
         row_length, dtype_name(*dtype));
  }
  std::ranges::reverse(entry.tensor.shape);
  entry.size_bytes = byte_size(*dtype, elements, place);
  entry.offset = cursor.number<std::uint64_t>(what);
  return entry;
}

std::uint64_t read_alignment(const GgufFile& file) {
  const std::int64_t alignment =
      file.int_value("general.alignment", static_cast<std::int64_t>(kGgufAlignment));
  const bool is_power_of_two = alignment > 0 && (alignment & (alignment - 1)) == 0;
  if (!is_power_of_two || alignment > (std::int64_t{1} << 31)) {
    fail(ErrorKind::kFormat, "{}: general.alignment is {}, expected a power of two",
         file.path().string(), alignment);
  }
  return static_cast<std::uint64_t>(alignment);
}

// Gives each tensor its bytes; refuses offsets outside the data section and overlaps.
void place_tensors(std::vector<TensorEntry>& entries, std::span<const std::byte> data,
                   std::uint64_t alignment, const std::string& file) {
  std::vector<const TensorEntry*> by_offset;
  for (TensorEntry& entry : entries) {
    const std::string& name = entry.tensor.name;
    if (entry.offset % alignment != 0) {
      fail(ErrorKind::kFormat, "{}: tensor {} begins at {}, which is not a multiple of {}", file,
           name, entry.offset, alignment);
    }
    if (entry.offset > data.size() || entry.size_bytes > data.size() - entry.offset) {
      fail(ErrorKind::kFormat,
           "{}: tensor {} takes {} bytes from {}, the data section has {}; is the download "
           "complete?",
           file, name, entry.size_bytes, entry.offset, data.size());
    }
    entry.tensor.bytes = data.subspan(entry.offset, entry.size_bytes);
    if (entry.size_bytes > 0) {
      by_offset.push_back(&entry);
    }
  }
  std::ranges::sort(by_offset, {}, [](const TensorEntry* entry) { return entry->offset; });
  for (std::size_t i = 1; i < by_offset.size(); ++i) {
    if (by_offset[i]->offset < by_offset[i - 1]->offset + by_offset[i - 1]->size_bytes) {
      fail(ErrorKind::kFormat, "{}: tensors {} and {} overlap", file, by_offset[i - 1]->tensor.name,
           by_offset[i]->tensor.name);
    }
  }
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) {
  read(path);
  if (const std::int64_t parts = int_value("split.count", 1); parts > 1) {
    add_parts(parts);
  }
}

void GgufFile::read(const std::filesystem::path& path) {
  file_ = std::make_shared<const MappedFile>(path);
  files_ = {path};
  const std::string place = path.string();
  GgufCursor cursor(file_->bytes(), place);
  const GgufCounts counts = read_start(cursor);
  for (std::uint64_t i = 0; i < counts.keys; ++i) {
    const std::string key = cursor.name("a key");
    if (!metadata_.try_emplace(key, read_value(cursor, "key " + key)).second) {
      fail(ErrorKind::kFormat, "{}: the key {} stands twice in it", place, key);
    }
  }
  std::vector<TensorEntry> entries;
  for (std::uint64_t i = 0; i < counts.tensors; ++i) {
    entries.push_back(read_tensor_entry(cursor));
    if (!index_.emplace(entries.back().tensor.name, entries.size() - 1).second) {
      fail(ErrorKind::kFormat, "{}: the tensor {} stands twice in it", place,
           entries.back().tensor.name);
    }
  }
  const std::uint64_t alignment = read_alignment(*this);
  const std::uint64_t start = padded_size(cursor.position(), alignment);
  const std::span<const std::byte> bytes = file_->bytes();
  place_tensors(entries, bytes.subspan(std::min<std::uint64_t>(start, bytes.size())), alignment,
                place);
  for (TensorEntry& entry : entries) {
    entry.tensor.file = file_;
    tensors_.push_back(std::move(entry.tensor));
  }
}

const StoredTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& GgufFile::tensor(std::string_view name) const {
  const StoredTensor* found = find_tensor(name);
  if (found == nullptr) {
    std::vector<std::string> names;
    for (const auto& entry : index_) {
      names.push_back(entry.first);
    }
    fail_missing_tensor(path().string(), name, names);
  }
  return *found;
}

}  // namespace puzzle
