// Runs the program under test as a process of its own.
#pragma once

#include <chrono>
#include <filesystem>
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

// Sends SIGKILL after `kill_after`, unless that is zero.
inline ProgramResult run_program(
    const std::vector<std::string>& arguments,
    std::chrono::milliseconds kill_after = std::chrono::milliseconds(0)) {
  const TempDir folder;
  const std::string out = (folder / "out").string();
  const std::string err = (folder / "err").string();
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
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ProgramResult result;
  int status = 0;
  const auto start = std::chrono::steady_clock::now();
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (kill_after.count() > 0 && std::chrono::steady_clock::now() - start >= kill_after) {
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
