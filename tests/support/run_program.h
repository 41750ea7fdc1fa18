// Runs the program under test as a process of its own.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puzzle/base/file.h"
#include "support/temp_dir.h"

namespace puzzle::test {

struct ProgramResult {
  int exit_code = 0;  // 128 + signal where one ended it
  std::string out;
  std::string err;
  bool was_killed = false;
};

// Looks at the running program every few milliseconds: its process, time since its start, and what
// it has written to stderr. Returning true kills it (SIGKILL).
using Watcher = std::function<bool(pid_t, std::chrono::milliseconds, const std::string&)>;

inline ProgramResult run_program(const std::vector<std::string>& arguments,
                                 const Watcher& watcher = {}) {
  const TempDir folder;
  const std::string out = (folder / "out").string();
  const std::string err = (folder / "err").string();
  write_text_file(out, "");
  write_text_file(err, "");
  std::vector<std::string> words = {PUZZLE_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) {
    throw std::runtime_error("cannot fork");
  }
  if (child == 0) {
    ::dup2(::open(out.c_str(), O_WRONLY | O_APPEND), STDOUT_FILENO);
    ::dup2(::open(err.c_str(), O_WRONLY | O_APPEND), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ProgramResult result;
  int status = 0;
  const auto start = std::chrono::steady_clock::now();
  while (::waitpid(child, &status, WNOHANG) == 0) {
    const auto now = std::chrono::steady_clock::now();
    if (watcher &&
        watcher(child, std::chrono::duration_cast<std::chrono::milliseconds>(now - start),
                read_text_file(err))) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      result.was_killed = true;
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  result.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  result.out = read_text_file(out);
  result.err = read_text_file(err);
  return result;
}

}  // namespace puzzle::test
