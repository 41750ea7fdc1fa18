#include "puzzle/dist/rank_process.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "puzzle/base/cores.h"
#include "puzzle/base/error.h"

namespace puzzle {
namespace {

[[noreturn]] void fail_launch(std::string_view what) {
  fail(ErrorKind::kIo, "--launch: {}: {}", what, std::strerror(errno));
}

// Environment of one rank: this process's without a launcher's variables, plus its own.
std::vector<std::string> rank_environment(int rank, int num_ranks, int port) {
  const std::vector<std::string> own = {
      fmt::format("RANK={}", rank),         fmt::format("WORLD_SIZE={}", num_ranks),
      fmt::format("LOCAL_RANK={}", rank),   fmt::format("LOCAL_WORLD_SIZE={}", num_ranks),
      std::string("MASTER_ADDR=127.0.0.1"), fmt::format("MASTER_PORT={}", port)};
  const std::vector<std::string> defaults = {
      fmt::format("OMP_NUM_THREADS={}", std::max<std::int64_t>(1, usable_cores() / num_ranks)),
      "OMP_WAIT_POLICY=PASSIVE"};  // spinning threads of one rank starve the others
  const auto same_name = [](std::string_view a, std::string_view b) {
    return a.substr(0, a.find('=')) == b.substr(0, b.find('='));
  };
  std::vector<std::string> all = own;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const bool replaced = std::any_of(
        own.begin(), own.end(), [&](const std::string& mine) { return same_name(mine, text); });
    if (!replaced && !text.starts_with("TORCHELASTIC_")) {
      all.emplace_back(text);
    }
  }
  for (const std::string& entry : defaults) {
    if (std::none_of(all.begin(), all.end(),
                     [&](const std::string& other) { return same_name(other, entry); })) {
      all.push_back(entry);
    }
  }
  return all;
}

std::vector<char*> c_strings(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

struct PipeEnds {
  int read;
  int write;
};

PipeEnds make_pipe() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    fail_launch("cannot make a pipe");
  }
  ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return {ends[0], ends[1]};
}

struct ChildPlan {
  const char* program;
  char* const* arguments;
  char* const* environment;
  int stdin_descriptor;
  int stdout_descriptor;  // -1: inherited
  int stderr_descriptor;
  pid_t parent;
};

// After fork in a process with threads only async-signal-safe calls are allowed.
[[noreturn]] void become_rank(const ChildPlan& plan) {
  // A group of its own: Ctrl-C reaches the launcher alone, which passes it on exactly once.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != plan.parent) {
    ::_exit(127);  // the launcher died before prctl
  }
  ::dup2(plan.stdin_descriptor, STDIN_FILENO);
  if (plan.stdout_descriptor >= 0) {
    ::dup2(plan.stdout_descriptor, STDOUT_FILENO);
  }
  ::dup2(plan.stderr_descriptor, STDERR_FILENO);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  ::execve(plan.program, plan.arguments, plan.environment);
  constexpr std::string_view kMessage = "--launch: cannot execute the program\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
  ::_exit(127);
}

}  // namespace

void start_rank_process(const LaunchOptions& options, int port, RankProcess& process) {
  const int rank = process.rank;
  const std::filesystem::path program =
      options.program.empty() ? std::filesystem::read_symlink("/proc/self/exe") : options.program;
  std::vector<std::string> arguments = {program.string()};
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  std::vector<std::string> environment = rank_environment(rank, options.num_ranks, port);
  const std::vector<char*> argument_pointers = c_strings(arguments);
  const std::vector<char*> environment_pointers = c_strings(environment);

  const int null_descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null_descriptor < 0) {
    fail_launch("cannot open /dev/null");
  }
  const PipeEnds error_pipe = make_pipe();
  process.outputs.push_back({error_pipe.read, ""});
  PipeEnds output_pipe{-1, -1};
  if (rank != 0) {
    output_pipe = make_pipe();
    process.outputs.push_back({output_pipe.read, ""});
  }
  const ChildPlan plan{program.c_str(), argument_pointers.data(), environment_pointers.data(),
                       null_descriptor, output_pipe.write,        error_pipe.write,
                       ::getpid()};
  std::fflush(nullptr);
  process.pid = ::fork();
  if (process.pid == 0) {
    become_rank(plan);
  }
  const int fork_error = errno;
  ::close(null_descriptor);
  ::close(error_pipe.write);
  if (output_pipe.write >= 0) {
    ::close(output_pipe.write);
  }
  if (process.pid < 0) {
    errno = fork_error;
    fail_launch("cannot start a process");
  }
}

}  // namespace puzzle
