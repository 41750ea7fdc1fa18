// A program run in the background in its own process group, with its output kept for error
// messages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace puzzle {

struct ChildProcessOptions {
  std::vector<std::string> arguments;    // the program's path first
  std::vector<std::string> environment;  // "NAME=value", added where NAME is not set already
  std::filesystem::path log_file;        // stdout and stderr; empty: an anonymous file in memory
};

// Killed with its group by the destructor, and by the kernel when the thread that started it ends.
class ChildProcess {
 public:
  // Throws Error(kIo) if the program cannot be run or the log cannot be written.
  explicit ChildProcess(const ChildProcessOptions& options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  [[nodiscard]] pid_t id() const { return id_; }
  // Nothing while it runs, then "exit status 1" or "signal 9 (Killed)". Thread-safe.
  [[nodiscard]] std::optional<std::string> ended() const;
  // All output so far, or its last lines.
  [[nodiscard]] std::string log() const;
  [[nodiscard]] std::string log_tail(std::int64_t lines) const;

 private:
  void start(const ChildProcessOptions& options);

  int log_descriptor_ = -1;
  pid_t id_ = -1;
  mutable std::mutex mutex_;
  mutable std::optional<int> status_;  // as waitpid gives it
};

// The program's path: itself where it holds a slash, else the first executable of that name in
// PATH.
[[nodiscard]] std::optional<std::filesystem::path> find_program(const std::string& name);
// The Python that the build was configured with or, where that is gone, python3.
[[nodiscard]] std::optional<std::filesystem::path> find_python();

}  // namespace puzzle
