// One process at a time in a run folder.
#pragma once

#include <filesystem>

namespace puzzle {

// Holds the folder as long as it lives; the system lets go when the process dies, however it does.
// The file `lock` in the folder stays and says who held it last. Nothing is held on file systems
// that know no locks.
class FolderLock {
 public:
  // Throws Error(kIo) naming the process that holds the folder, or where the file cannot be
  // written.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace puzzle
