// Safetensors files, single or sharded.
//
// A file is: u64 length N of the header | N bytes of JSON {name: {dtype, shape, data_offsets}}
// padded with spaces | the tensors, packed. Offsets are relative to the end of the header. Readers
// map the file and copy nothing; they refuse whatever the reference reader refuses: header beyond
// 100 MB or the file, duplicate names, gaps, overlaps, sizes that contradict dtype and shape, bytes
// after the last tensor.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/formats/stored_tensor.h"

namespace puzzle {

class SafetensorsFile {
 public:
  // Throws Error(kIo) if it cannot be opened, Error(kFormat) for its content.
  explicit SafetensorsFile(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_->path(); }
  // In the order of their bytes.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Null if there is none of that name.
  [[nodiscard]] const StoredTensor* find_tensor(std::string_view name) const;
  // Throws Error(kFormat), naming the file and the nearest name.
  [[nodiscard]] const StoredTensor& tensor(std::string_view name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// The weights of a Hugging Face folder: model.safetensors, else the shards that
// model.safetensors.index.json names (sub-folders allowed, but nothing outside the folder). A path
// to a .safetensors or .index.json file is taken as it is.
class SafetensorsModel {
 public:
  // Throws Error(kIo) if there is nothing to open, Error(kFormat) for content, also for an index
  // that names a tensor its shard does not hold.
  explicit SafetensorsModel(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // The files that hold tensors, in order of name; for content keys.
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const { return files_; }
  // By name. Tensors of a shard that the index does not list are left out.
  [[nodiscard]] const std::map<std::string, StoredTensor, std::less<>>& tensors() const {
    return tensors_;
  }

  [[nodiscard]] const StoredTensor* find_tensor(std::string_view name) const;
  // Throws Error(kFormat), naming the folder and the nearest name.
  [[nodiscard]] const StoredTensor& tensor(std::string_view name) const;

 private:
  void add_file(const std::filesystem::path& path);
  void add_shards(const std::filesystem::path& index_path);

  std::filesystem::path path_;
  std::vector<std::filesystem::path> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

// Writes one file in the reference writer's order (wide types first, then by name), so that every
// tensor is aligned to its element and equal content gives equal bytes. `metadata` is added to
// {"format": "pt"}. Throws Error(kIo) for the disk, Error(kInternal) for duplicate names or types
// that safetensors lacks.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace puzzle
