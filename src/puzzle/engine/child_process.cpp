#include "puzzle/engine/child_process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

bool is_executable_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}

int open_child_log(const std::filesystem::path& path) {
  const int descriptor =
      path.empty() ? ::memfd_create("puzzle-child-log", MFD_CLOEXEC)
                   : ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    fail(ErrorKind::kIo, "{}: cannot be written: {}", path.empty() ? "memory file" : path.string(),
         ::strerror(errno));
  }
  return descriptor;
}

std::vector<std::string> merged_environment(const std::vector<std::string>& added) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    merged.emplace_back(*entry);
  }
  for (const std::string& assignment : added) {
    const std::string name = assignment.substr(0, assignment.find('='));
    if (::getenv(name.c_str()) == nullptr) {
      merged.push_back(assignment);
    }
  }
  return merged;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const std::string& text : strings) {
    result.push_back(const_cast<char*>(text.c_str()));
  }
  result.push_back(nullptr);
  return result;
}

struct ChildImage {
  const char* program;
  char* const* arguments;
  char* const* environment;
  int log_descriptor;
  int error_descriptor;  // receives errno where exec fails
  pid_t parent;
};

// Runs between fork and exec, possibly with locks of other threads held: system calls only.
[[noreturn]] void become_program(const ChildImage& image) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != image.parent) {
    ::_exit(127);  // the parent died before the line above
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(image.log_descriptor, STDOUT_FILENO);
  ::dup2(image.log_descriptor, STDERR_FILENO);
  // Sockets of a process group or a database must not live on in the child.
  ::close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC);
  ::execve(image.program, image.arguments, image.environment);
  const int error = errno;
  if (::write(image.error_descriptor, &error, sizeof error) < 0) {
    ::_exit(126);
  }
  ::_exit(127);
}

// errno of a failed exec; 0 once exec has closed the pipe.
int read_exec_error(int descriptor) {
  int error = 0;
  ssize_t count = 0;
  do {
    count = ::read(descriptor, &error, sizeof error);
  } while (count < 0 && errno == EINTR);
  return count == static_cast<ssize_t>(sizeof error) ? error : 0;
}

std::string describe_status(int status) {
  if (WIFSIGNALED(status)) {
    return fmt::format("signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  }
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

ChildProcess::ChildProcess(const ChildProcessOptions& options)
    : log_descriptor_(open_child_log(options.log_file)) {
  try {
    start(options);
  } catch (...) {
    ::close(log_descriptor_);
    throw;
  }
}

void ChildProcess::start(const ChildProcessOptions& options) {
  const std::vector<std::string> environment = merged_environment(options.environment);
  const std::vector<char*> environment_pointers = pointers(environment);
  const std::vector<char*> argument_pointers = pointers(options.arguments);
  const std::string& program = options.arguments.front();
  std::array<int, 2> pipe_ends{};
  if (::pipe2(pipe_ends.data(), O_CLOEXEC) != 0) {
    fail(ErrorKind::kIo, "{}: no pipe: {}", program, ::strerror(errno));
  }
  const ChildImage image{program.c_str(),
                         argument_pointers.data(),
                         environment_pointers.data(),
                         log_descriptor_,
                         pipe_ends[1],
                         ::getpid()};
  id_ = ::fork();
  if (id_ == 0) {
    become_program(image);
  }
  const int fork_error = errno;
  ::close(pipe_ends[1]);
  const int exec_error = id_ < 0 ? fork_error : read_exec_error(pipe_ends[0]);
  ::close(pipe_ends[0]);
  if (exec_error != 0) {
    if (id_ > 0) {
      ::waitpid(id_, nullptr, 0);
    }
    fail(ErrorKind::kIo, "{}: cannot be started: {}", program, ::strerror(exec_error));
  }
}

ChildProcess::~ChildProcess() {
  // The group may hold processes even where its first one has ended.
  ::kill(-id_, SIGKILL);
  const std::lock_guard lock(mutex_);
  if (!status_) {
    while (::waitpid(id_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  ::close(log_descriptor_);
}

std::optional<std::string> ChildProcess::ended() const {
  const std::lock_guard lock(mutex_);
  if (!status_) {
    int status = 0;
    if (::waitpid(id_, &status, WNOHANG) == id_) {
      status_ = status;
    }
  }
  return status_ ? std::optional(describe_status(*status_)) : std::nullopt;
}

std::string ChildProcess::log() const {
  struct stat facts{};
  if (::fstat(log_descriptor_, &facts) != 0 || facts.st_size <= 0) {
    return {};
  }
  std::string text(static_cast<std::size_t>(facts.st_size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count =
        ::pread(log_descriptor_, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (count <= 0) {
      break;
    }
    done += static_cast<std::size_t>(count);
  }
  text.resize(done);
  return text;
}

std::string ChildProcess::log_tail(std::int64_t lines) const {
  const std::string text = log();
  std::string_view rest = trim(text);
  std::size_t begin = rest.size();
  for (std::int64_t line = 0; line < lines && begin > 0; ++line) {
    const std::size_t newline = rest.rfind('\n', begin - 1);
    begin = newline == std::string_view::npos ? 0 : newline;
  }
  return std::string(trim(rest.substr(begin)));
}

std::optional<std::filesystem::path> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    return is_executable_file(name) ? std::optional<std::filesystem::path>(name) : std::nullopt;
  }
  const char* folders = ::getenv("PATH");
  for (const std::string& folder : split(folders == nullptr ? "" : folders, ':')) {
    std::filesystem::path path = std::filesystem::path(folder.empty() ? "." : folder) / name;
    if (is_executable_file(path)) {
      return path;
    }
  }
  return std::nullopt;
}

std::optional<std::filesystem::path> find_python() {
  const auto configured = find_program(PUZZLE_PYTHON);
  return configured ? configured : find_program("python3");
}

}  // namespace puzzle
