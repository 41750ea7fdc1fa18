#include "puzzle/formats/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"

namespace puzzle {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference reader's limit
constexpr const char* kIncompleteAdvice =
    "is the file complete? download it again, or delete it if puzzle wrote it";
constexpr const char* kSafetensorsFileName = "model.safetensors";
constexpr const char* kSafetensorsIndexName = "model.safetensors.index.json";

struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

std::uint64_t parse_unsigned(const Json& value, const std::string& place) {
  if (!value.is_number_unsigned()) {
    fail(ErrorKind::kFormat, "{}: found {}, expected a whole number of 0 or more", place,
         value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
  }
  return value.get<std::uint64_t>();
}

std::vector<std::int64_t> parse_shape(const Json& entry, const std::string& place) {
  const auto member = entry.find("shape");
  if (member == entry.end() || !member->is_array()) {
    fail(ErrorKind::kFormat, "{}: \"shape\" is missing or not a list", place);
  }
  std::vector<std::int64_t> shape;
  for (const Json& value : *member) {
    const std::uint64_t size = parse_unsigned(value, place + ": shape");
    if (size > static_cast<std::uint64_t>(INT64_MAX)) {
      fail(ErrorKind::kFormat, "{}: a dimension is {}", place, size);
    }
    shape.push_back(static_cast<std::int64_t>(size));
  }
  return shape;
}

Extent parse_extent(const Json& entry, const std::string& place) {
  const auto member = entry.find("data_offsets");
  if (member == entry.end() || !member->is_array() || member->size() != 2) {
    fail(ErrorKind::kFormat, "{}: \"data_offsets\" is missing or not a pair", place);
  }
  return {parse_unsigned((*member)[0], place + ": data_offsets"),
          parse_unsigned((*member)[1], place + ": data_offsets")};
}

// Everything but the bytes, which need the extents of all tensors checked first.
StoredTensor parse_entry(const std::string& name, const Json& entry, const std::string& file,
                         Extent& extent) {
  const std::string place = file + ": tensor " + name;
  if (!entry.is_object()) {
    fail(ErrorKind::kFormat, "{}: found {}, expected an object", place, entry.type_name());
  }
  StoredTensor tensor;
  tensor.name = name;
  const std::string dtype = json_string(entry, "dtype", place);
  const std::optional<DType> found = find_safetensors_dtype(dtype);
  if (!found.has_value()) {
    fail(ErrorKind::kFormat, "{}: the type {} is not supported", place, dtype);
  }
  tensor.dtype = *found;
  tensor.shape = parse_shape(entry, place);
  extent = parse_extent(entry, place);
  const std::uint64_t expected = byte_size(tensor.dtype, num_elements(tensor.shape, place), place);
  if (extent.end < extent.begin || extent.end - extent.begin != expected) {
    fail(ErrorKind::kFormat,
         "{}: data_offsets [{}, {}] do not hold the {} bytes of its shape and {}", place,
         extent.begin, extent.end, expected, dtype);
  }
  return tensor;
}

std::map<std::string, std::string> parse_metadata(const Json& header, const std::string& file) {
  std::map<std::string, std::string> metadata;
  const auto member = header.find("__metadata__");
  if (member == header.end()) {
    return metadata;
  }
  if (!member->is_object()) {
    fail(ErrorKind::kFormat, "{}: __metadata__ is not an object", file);
  }
  for (const auto& [key, value] : member->items()) {
    if (!value.is_string()) {
      fail(ErrorKind::kFormat, "{}: __metadata__ \"{}\" is {}, expected a string", file, key,
           value.type_name());
    }
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

std::string_view find_header(std::span<const std::byte> bytes, const std::string& file) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    fail(ErrorKind::kFormat, "{}: {} bytes are too few for a safetensors file", file, bytes.size());
  }
  std::memcpy(&length, bytes.data(), sizeof(length));
  const std::uint64_t rest = bytes.size() - sizeof(length);
  if (length > kMaxHeaderBytes) {
    fail(ErrorKind::kFormat,
         "{}: the header claims {} bytes, at most {} are allowed; is it a safetensors file?", file,
         length, kMaxHeaderBytes);
  }
  if (length > rest) {
    fail(ErrorKind::kFormat, "{}: the header claims {} bytes, the file has {} left; {}", file,
         length, rest, kIncompleteAdvice);
  }
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof(length),
                                length);
  if (header.empty() || header.front() != '{') {
    fail(ErrorKind::kFormat, "{}: the header does not start with {{; is it a safetensors file?",
         file);
  }
  return header;
}

// Refuses gaps, overlaps and bytes after the last tensor; `extents` are in order.
void check_extents(const std::vector<StoredTensor>& tensors, const std::vector<Extent>& extents,
                   std::uint64_t data_bytes, const std::string& file) {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (extents[i].begin != end) {
      fail(ErrorKind::kFormat, "{}: tensor {} begins at {}, the one before it ends at {}", file,
           tensors[i].name, extents[i].begin, end);
    }
    end = extents[i].end;
    if (end > data_bytes) {
      fail(ErrorKind::kFormat, "{}: tensor {} ends at {}, the data at {}; {}", file,
           tensors[i].name, end, data_bytes, kIncompleteAdvice);
    }
  }
  if (end != data_bytes) {
    fail(ErrorKind::kFormat, "{}: the tensors end at {}, the data at {}", file, end, data_bytes);
  }
}

std::string quoted(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail(ErrorKind::kInternal, "a safetensors name or metadata value is not UTF-8: {}", text);
  }
}

// Compact JSON in the order of the bytes, as the reference writer has it.
std::string make_header(const std::vector<TensorToWrite>& tensors,
                        const std::vector<std::uint64_t>& sizes,
                        const std::map<std::string, std::string>& metadata) {
  std::string header = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    header += (header.back() == '{' ? "" : ",") + quoted(key) + ":" + quoted(value);
  }
  header += "}";
  std::uint64_t begin = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorToWrite& tensor = tensors[i];
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[", quoted(tensor.name),
                          dtype_name(tensor.dtype));
    for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
      header += fmt::format("{}{}", d == 0 ? "" : ",", tensor.shape[d]);
    }
    header += fmt::format("],\"data_offsets\":[{},{}]}}", begin, begin + sizes[i]);
    begin += sizes[i];
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

void check_tensors_to_write(const std::vector<TensorToWrite>& tensors) {
  std::set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    PUZZLE_CHECK(tensor.name != "__metadata__" && names.insert(tensor.name).second,
                 "safetensors cannot hold this tensor name, or not twice: {}", tensor.name);
    PUZZLE_CHECK(dtype_info(tensor.dtype).safetensors_rank >= 0,
                 "tensor {}: safetensors has no type {}", tensor.name, dtype_name(tensor.dtype));
  }
}

// A shard's path, kept below `folder`.
std::filesystem::path shard_path(const std::filesystem::path& folder, const std::string& value,
                                 const std::string& place) {
  const std::filesystem::path relative(value);
  bool leaves = value.empty() || value.find('\0') != std::string::npos || relative.is_absolute();
  for (const std::filesystem::path& part : relative) {
    leaves = leaves || part == "..";
  }
  if (leaves) {
    fail(ErrorKind::kFormat, "{}: the shard \"{}\" is not below the model's folder", place, value);
  }
  return folder / relative;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : file_(std::make_shared<const MappedFile>(path)) {
  const std::string place = path.string();
  const std::span<const std::byte> bytes = file_->bytes();
  const std::string_view header = find_header(bytes, place);
  const std::span<const std::byte> data = bytes.subspan(sizeof(std::uint64_t) + header.size());
  const Json json = parse_json(header, place);
  metadata_ = parse_metadata(json, place);

  std::vector<std::pair<Extent, StoredTensor>> entries;
  for (const auto& [name, entry] : json.items()) {
    if (name != "__metadata__") {
      Extent extent;
      StoredTensor tensor = parse_entry(name, entry, place, extent);
      entries.emplace_back(extent, std::move(tensor));
    }
  }
  std::ranges::stable_sort(
      entries, {}, [](const auto& entry) { return std::pair(entry.first.begin, entry.first.end); });
  std::vector<Extent> extents;
  for (auto& [extent, tensor] : entries) {
    extents.push_back(extent);
    index_[tensor.name] = tensors_.size();
    tensors_.push_back(std::move(tensor));
  }
  check_extents(tensors_, extents, data.size(), place);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    tensors_[i].bytes = data.subspan(extents[i].begin, extents[i].end - extents[i].begin);
    tensors_[i].file = file_;
  }
}

const StoredTensor* SafetensorsFile::find_tensor(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const StoredTensor& SafetensorsFile::tensor(std::string_view name) const {
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

SafetensorsModel::SafetensorsModel(const std::filesystem::path& path) : path_(path) {
  if (path.string().ends_with(".index.json")) {
    add_shards(path);
  } else if (!std::filesystem::is_directory(path)) {
    add_file(path);
  } else if (std::filesystem::exists(path / kSafetensorsFileName)) {
    add_file(path / kSafetensorsFileName);
  } else if (std::filesystem::exists(path / kSafetensorsIndexName)) {
    add_shards(path / kSafetensorsIndexName);
  } else {
    fail(ErrorKind::kIo, "{}: holds neither {} nor {}; other weight formats are not read",
         path.string(), kSafetensorsFileName, kSafetensorsIndexName);
  }
}

void SafetensorsModel::add_file(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  for (const StoredTensor& tensor : file.tensors()) {
    tensors_.emplace(tensor.name, tensor);
  }
  files_.push_back(path);
}

void SafetensorsModel::add_shards(const std::filesystem::path& index_path) {
  const std::string place = index_path.string();
  const Json index = load_json(index_path);
  const auto weight_map = index.is_object() ? index.find("weight_map") : index.end();
  if (weight_map == index.end() || !weight_map->is_object()) {
    fail(ErrorKind::kFormat, "{}: \"weight_map\" is missing or not an object", place);
  }
  std::map<std::filesystem::path, std::vector<std::string>> names_of_shard;
  for (const auto& [name, value] : weight_map->items()) {
    if (!value.is_string()) {
      fail(ErrorKind::kFormat, "{}: the shard of {} is {}, expected a string", place, name,
           value.type_name());
    }
    const auto shard = shard_path(index_path.parent_path(), value.get<std::string>(), place);
    names_of_shard[shard].push_back(name);
  }
  for (const auto& [shard, names] : names_of_shard) {
    const SafetensorsFile file(shard);
    for (const std::string& name : names) {
      const StoredTensor* tensor = file.find_tensor(name);
      if (tensor == nullptr) {
        fail(ErrorKind::kFormat, "{}: {} does not hold tensor {}", place, shard.string(), name);
      }
      tensors_.emplace(name, *tensor);
    }
    files_.push_back(shard);
  }
}

const StoredTensor* SafetensorsModel::find_tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const StoredTensor& SafetensorsModel::tensor(std::string_view name) const {
  const StoredTensor* found = find_tensor(name);
  if (found == nullptr) {
    std::vector<std::string> names;
    for (const auto& entry : tensors_) {
      names.push_back(entry.first);
    }
    fail_missing_tensor(path_.string(), name, names);
  }
  return *found;
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  check_tensors_to_write(tensors);
  std::ranges::sort(tensors, [](const TensorToWrite& left, const TensorToWrite& right) {
    const std::int32_t left_rank = dtype_info(left.dtype).safetensors_rank;
    const std::int32_t right_rank = dtype_info(right.dtype).safetensors_rank;
    return left_rank != right_rank ? left_rank > right_rank : left.name < right.name;
  });
  std::vector<std::uint64_t> sizes;
  for (const TensorToWrite& tensor : tensors) {
    sizes.push_back(byte_size(tensor.dtype, num_elements(tensor.shape, tensor.name), tensor.name));
  }
  std::map<std::string, std::string> all_metadata = metadata;
  const auto format = all_metadata.emplace("format", "pt").first;
  PUZZLE_CHECK(format->second == "pt", "metadata \"format\" is {}, which transformers refuses",
               format->second);
  const std::string header = make_header(tensors, sizes, all_metadata);
  const auto header_bytes = static_cast<std::uint64_t>(header.size());
  PUZZLE_CHECK(header_bytes <= kMaxHeaderBytes, "a header of {} bytes", header_bytes);

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(header);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    write_tensor_bytes(file, tensors[i], sizes[i]);
  }
  file.commit();
}

}  // namespace puzzle
