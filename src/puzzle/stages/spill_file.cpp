#include "puzzle/stages/spill_file.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

int open_nameless(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) {
    return descriptor;
  }
  // A file system without nameless files: the name lives for an instant only.
  std::string name = (folder / "spill-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) {
    (void)::unlink(name.c_str());
  }
  return named;
}

}  // namespace

SpillFile::SpillFile(const std::filesystem::path& folder, std::int64_t bytes, std::string content)
    : content_(std::move(content)), folder_(folder) {
  make_folder(folder);
  std::error_code failed;
  const std::filesystem::space_info space = std::filesystem::space(folder, failed);
  const auto fail_without_room = [&] {
    fail(ErrorKind::kIo,
         "{}: needs {} of free disk in {}, has {}; free some, keep more in memory "
         "(state_memory_mib), or take fewer tokens",
         content_, human_bytes(static_cast<double>(bytes)), folder.string(),
         human_bytes(static_cast<double>(space.available)));
  };
  if (!failed && static_cast<std::uintmax_t>(bytes) > space.available) {
    fail_without_room();
  }
  descriptor_ = open_nameless(folder);
  if (descriptor_ < 0) {
    fail(ErrorKind::kIo, "{}: no scratch file in {}: {}", content_, folder.string(),
         std::strerror(errno));
  }
  if (::fallocate(descriptor_, 0, 0, bytes) != 0 && errno == ENOSPC) {
    ::close(descriptor_);
    fail_without_room();
  }
}

SpillFile::~SpillFile() { ::close(descriptor_); }

void SpillFile::write(std::int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      fail(ErrorKind::kIo, "{}: scratch file in {}: cannot write: {}", content_, folder_.string(),
           std::strerror(errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
}

void SpillFile::read(std::int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor_, bytes.data(), bytes.size(), offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      fail(ErrorKind::kIo, "{}: scratch file in {}: cannot read: {}", content_, folder_.string(),
           got == 0 ? "it is shorter than expected" : std::strerror(errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(got));
    offset += got;
  }
}

}  // namespace puzzle
