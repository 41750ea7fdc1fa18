// Whole files: read, map, write so that a reader never sees half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

// Also pipes and devices. Throws Error(kIo).
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path);

// Read-only mapping of a plain file; the pages are shared with every other reader. Throws
// Error(kIo).
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Writes to a temporary neighbour; `commit` makes it appear under its name after fsync. A full disk
// or any other failure throws Error(kIo) with the path and leaves the old file as it was; without
// commit the temporary file is removed.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  [[nodiscard]] std::uint64_t size() const { return written_; }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::uint64_t written_ = 0;
};

void write_text_file(const std::filesystem::path& path, std::string_view text);

// Removes what AtomicFiles of processes that are gone left below the folder: they were killed
// before commit. Files of this host's living processes stay. Returns what was removed; what cannot
// be removed stays, too.
std::vector<std::filesystem::path> remove_stale_temporaries(const std::filesystem::path& folder);

// Creates the folder and its parents. Throws Error(kIo).
void make_folder(const std::filesystem::path& path);

}  // namespace puzzle
