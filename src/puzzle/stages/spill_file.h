// A scratch file for what does not fit into memory. It has no name on the disk, so it is gone when
// its owner is, however the process ends, and no run ever finds a stale one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace puzzle {

class SpillFile {
 public:
  // Room for `bytes`, taken from the disk of `folder` at once. `content` opens messages. Throws
  // Error(kIo) where there is less: what is needed, what there is.
  SpillFile(const std::filesystem::path& folder, std::int64_t bytes, std::string content);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  // Throw Error(kIo); the range must lie within the file, what is read must have been written.
  void write(std::int64_t offset, std::span<const std::byte> bytes);
  void read(std::int64_t offset, std::span<std::byte> bytes) const;

 private:
  std::string content_;
  std::filesystem::path folder_;
  int descriptor_ = -1;
};

}  // namespace puzzle
