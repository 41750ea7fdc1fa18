#include "puzzle/base/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

[[noreturn]] void fail_io(const std::filesystem::path& path, const char* action, int code) {
  fail(ErrorKind::kIo, "{}: cannot {}: {}", path.string(), action, std::strerror(code));
}

// Opens a file for reading; folders are refused.
class ReadDescriptor {
 public:
  explicit ReadDescriptor(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      fail_io(path, "open it", errno);
    }
    if (::fstat(descriptor_, &status_) != 0) {
      const int code = errno;
      ::close(descriptor_);
      fail_io(path, "look at it", code);
    }
    if (S_ISDIR(status_.st_mode)) {
      ::close(descriptor_);
      fail(ErrorKind::kIo, "{}: is a folder, expected a file", path.string());
    }
  }
  ~ReadDescriptor() { ::close(descriptor_); }
  ReadDescriptor(const ReadDescriptor&) = delete;
  ReadDescriptor& operator=(const ReadDescriptor&) = delete;

  [[nodiscard]] int number() const { return descriptor_; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(status_.st_size); }
  [[nodiscard]] bool is_plain() const { return S_ISREG(status_.st_mode); }

 private:
  int descriptor_;
  struct stat status_ = {};
};

constexpr std::string_view kTemporaryMark = ".tmp-";

// The process that writes a temporary file, "<name>.tmp-<process>-<count>"; nothing for other
// names.
std::optional<pid_t> temporary_owner(const std::string& name) {
  const std::size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string::npos) {
    return std::nullopt;
  }
  const char* const end = name.data() + name.size();
  pid_t process = 0;
  const auto owner = std::from_chars(name.data() + mark + kTemporaryMark.size(), end, process);
  if (owner.ec != std::errc() || process <= 0 || owner.ptr == end || *owner.ptr != '-') {
    return std::nullopt;
  }
  unsigned count = 0;
  const auto rest = std::from_chars(owner.ptr + 1, end, count);
  return rest.ec == std::errc() && rest.ptr == end ? std::optional(process) : std::nullopt;
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path) {
  const ReadDescriptor file(path);
  std::string text(std::max<std::size_t>(file.size() + 1, 4096), '\0');
  std::size_t length = 0;
  while (true) {  // pipes and /proc state no size, and a plain file may grow meanwhile
    if (length == text.size()) {
      text.resize(2 * text.size());
    }
    const ssize_t count = ::read(file.number(), text.data() + length, text.size() - length);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail_io(path, "read it", errno);
    }
    if (count == 0) {
      text.resize(length);
      return text;
    }
    length += static_cast<std::size_t>(count);
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const ReadDescriptor file(path);
  if (!file.is_plain()) {
    fail(ErrorKind::kIo, "{}: is a pipe or device, expected a plain file", path.string());
  }
  size_ = file.size();
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.number(), 0);
    if (address == MAP_FAILED) {
      fail_io(path, "map it", errno);
    }
    data_ = static_cast<const std::byte*>(address);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter{0};
  temporary_ = path_;
  temporary_ += fmt::format("{}{}-{}", kTemporaryMark, ::getpid(), counter++);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    fail_io(path_, "create it", errno);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      fail_io(path_, "write it", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    written_ += static_cast<std::uint64_t>(count);
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) {
    fail_io(path_, "flush it to disk", errno);
  }
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    fail_io(path_, "close it", code);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int code = errno;
    ::unlink(temporary_.c_str());
    fail_io(path_, "rename it into place", code);
  }
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::vector<std::filesystem::path> remove_stale_temporaries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> stale;
  std::error_code error;
  for (auto entry = std::filesystem::recursive_directory_iterator(folder, error);
       !error && entry != std::filesystem::recursive_directory_iterator(); entry.increment(error)) {
    const std::optional<pid_t> owner = temporary_owner(entry->path().filename().string());
    if (owner && ::kill(*owner, 0) != 0 && errno == ESRCH) {
      stale.push_back(entry->path());
    }
  }
  std::erase_if(stale, [](const std::filesystem::path& path) {
    std::error_code ignored;
    return !std::filesystem::remove(path, ignored);
  });
  return stale;
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    fail(ErrorKind::kIo, "{}: cannot create the folder: {}", path.string(), error.message());
  }
}

}  // namespace puzzle
