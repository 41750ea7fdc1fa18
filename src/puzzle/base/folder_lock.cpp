#include "puzzle/base/folder_lock.h"

#include <cerrno>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "this host";
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "lock";
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    fail(ErrorKind::kIo, "{}: cannot create it: {}", file.string(), std::strerror(errno));
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int code = errno;
    if (code == EWOULDBLOCK) {
      const std::string holder(trim(read_text_file(file)));
      ::close(descriptor_);
      fail(ErrorKind::kIo, "{}: {} works in this folder; wait for it, stop it, or use another",
           folder.string(), holder.empty() ? "another process" : holder);
    }
    return;  // a file system without locks
  }
  const std::string holder = fmt::format("process {} of {}\n", ::getpid(), host_name());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, holder.data(), holder.size(), 0) < 0) {
    return;  // a full disk takes the name, not the lock
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace puzzle
