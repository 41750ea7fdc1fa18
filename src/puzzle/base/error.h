// The one exception type of the project, and the only ways to throw it.
//
// A message says where (file, tensor, option, layer): what was found, what was expected and why,
// and, after a semicolon, advice if there is any. No exclamation marks, no "Error:" inside.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace puzzle {

// Who has to act; the process exit code follows from it.
enum class ErrorKind {
  kUsage,        // options or recipe: 2
  kFormat,       // a file's content: 3
  kIo,           // disk, network, another program: 4
  kInfeasible,   // no child meets the budgets: 5
  kNumeric,      // non-finite values, a solve that fails: 6
  kPeer,         // another rank died or hangs: 7
  kInterrupted,  // SIGINT or SIGTERM; a resumable stop: 130
  kInternal,     // our own bug: 70
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

[[nodiscard]] int exit_code(ErrorKind kind);
[[nodiscard]] std::string_view kind_name(ErrorKind kind);

[[noreturn]] void fail_with(ErrorKind kind, const std::string& message);

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  fail_with(kind, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void fail_check(const char* condition, const char* file, int line,
                             const std::string& message);

}  // namespace puzzle

// For our own invariants only, on in every build type. User input goes through fail().
#define PUZZLE_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      ::puzzle::fail_check(#condition, __FILE__, __LINE__, ::fmt::format(__VA_ARGS__)); \
    }                                                                                   \
  } while (false)
