#include "puzzle/dist/launch.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMs = 50;
constexpr std::size_t kMaxHeldBytes = 1 << 20;  // per rank, of output that may turn out to matter
constexpr std::size_t kMaxLineBytes = 1 << 16;  // a longer line is passed on in pieces

[[noreturn]] void fail_launch(std::string_view what) {
  fail(ErrorKind::kIo, "--launch: {}: {}", what, std::strerror(errno));
}

// Asks the kernel for a port that nobody has. It is free again on return, so another program could
// take it in between; the ranks then report that they cannot join.
int find_free_port() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) {
    fail_launch("cannot open a socket");
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const bool found =
      ::bind(descriptor, generic, size) == 0 && ::getsockname(descriptor, generic, &size) == 0;
  ::close(descriptor);
  if (!found) {
    fail_launch("cannot find a free port");
  }
  return ntohs(address.sin_port);
}

// Environment of one rank: this process's without a launcher's variables, plus its own.
std::vector<std::string> rank_environment(int rank, int num_ranks, int port) {
  const std::vector<std::string> own = {
      fmt::format("RANK={}", rank),         fmt::format("WORLD_SIZE={}", num_ranks),
      fmt::format("LOCAL_RANK={}", rank),   fmt::format("LOCAL_WORLD_SIZE={}", num_ranks),
      std::string("MASTER_ADDR=127.0.0.1"), fmt::format("MASTER_PORT={}", port)};
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  const std::vector<std::string> defaults = {
      fmt::format("OMP_NUM_THREADS={}", std::max(1U, cores / static_cast<unsigned>(num_ranks))),
      "OMP_WAIT_POLICY=PASSIVE",     // spinning threads of one rank starve the others
      "TORCH_CPP_LOG_LEVEL=ERROR"};  // c10d's own retries are not for people
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

// One end of a rank's output, cut into lines.
struct OutputPipe {
  int descriptor = -1;
  std::string pending;  // an unfinished line
};

struct RankProcess {
  int rank = 0;
  pid_t pid = -1;
  std::vector<OutputPipe> outputs;
  std::optional<int> wait_status;
  bool was_told_to_end = false;
  bool was_killed = false;
  std::string held;  // lines after another rank's failure
};

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

class Supervisor {
 public:
  explicit Supervisor(const LaunchOptions& options) : options_(options) {}
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  void start();
  [[nodiscard]] int wait();

 private:
  void start_rank(int rank, int port, int null_descriptor);
  [[nodiscard]] bool reap();
  void poll_outputs();
  void read_output(RankProcess& process, OutputPipe& output);
  void emit(RankProcess& process, std::string_view line);
  void end_others();
  void kill_the_slow();
  [[nodiscard]] int verdict();

  [[nodiscard]] static bool failed(const RankProcess& process) {
    return process.wait_status && *process.wait_status != 0;
  }
  [[nodiscard]] static bool ended_by_us(const RankProcess& process);

  const LaunchOptions& options_;
  std::vector<RankProcess> processes_;
  std::optional<Clock::time_point> end_time_;  // when the others were told to end
  int first_failed_ = -1;
  bool interrupted_ = false;
};

Supervisor::~Supervisor() {
  for (RankProcess& process : processes_) {
    if (!process.wait_status && process.pid > 0) {
      ::kill(process.pid, SIGKILL);
      ::waitpid(process.pid, nullptr, 0);
    }
    for (const OutputPipe& output : process.outputs) {
      if (output.descriptor >= 0) {
        ::close(output.descriptor);
      }
    }
  }
}

void Supervisor::start() {
  const int port = find_free_port();
  const int null_descriptor = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null_descriptor < 0) {
    fail_launch("cannot open /dev/null");
  }
  processes_.resize(static_cast<std::size_t>(options_.num_ranks));
  for (int rank = 0; rank < options_.num_ranks; ++rank) {
    start_rank(rank, port, null_descriptor);
  }
  ::close(null_descriptor);
}

void Supervisor::start_rank(int rank, int port, int null_descriptor) {
  RankProcess& process = processes_[static_cast<std::size_t>(rank)];
  process.rank = rank;
  const std::filesystem::path program =
      options_.program.empty() ? std::filesystem::read_symlink("/proc/self/exe") : options_.program;
  std::vector<std::string> arguments = {program.string()};
  arguments.insert(arguments.end(), options_.arguments.begin(), options_.arguments.end());
  std::vector<std::string> environment = rank_environment(rank, options_.num_ranks, port);
  const std::vector<char*> argument_pointers = c_strings(arguments);
  const std::vector<char*> environment_pointers = c_strings(environment);

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
  ::close(error_pipe.write);
  if (output_pipe.write >= 0) {
    ::close(output_pipe.write);
  }
  if (process.pid < 0) {
    errno = fork_error;
    fail_launch("cannot start a process");
  }
}

// Takes note of ranks that ended; true while some still run.
bool Supervisor::reap() {
  bool running = false;
  for (RankProcess& process : processes_) {
    if (process.wait_status) {
      continue;
    }
    int status = 0;
    if (::waitpid(process.pid, &status, WNOHANG) != process.pid) {
      running = true;
      continue;
    }
    process.wait_status = status;
    if (status != 0 && first_failed_ < 0 && !interrupted_) {
      first_failed_ = process.rank;
    }
  }
  return running;
}

void Supervisor::end_others() {
  if (end_time_ || (first_failed_ < 0 && !interrupted_)) {
    return;
  }
  end_time_ = Clock::now();
  for (RankProcess& process : processes_) {
    if (!process.wait_status) {
      process.was_told_to_end = true;
      ::kill(process.pid, SIGTERM);
      ::kill(process.pid, SIGCONT);  // a stopped process would not notice
    }
  }
}

void Supervisor::kill_the_slow() {
  if (!end_time_ ||
      std::chrono::duration<double>(Clock::now() - *end_time_).count() < options_.grace_s) {
    return;
  }
  for (RankProcess& process : processes_) {
    if (!process.wait_status && !process.was_killed) {
      process.was_killed = true;
      ::kill(process.pid, SIGKILL);
    }
  }
}

void Supervisor::emit(RankProcess& process, std::string_view line) {
  const std::string prefix = fmt::format("rank {}: ", process.rank);
  const std::string text = fmt::format("{}{}\n", line.starts_with(prefix) ? "" : prefix, line);
  if (first_failed_ >= 0 && process.rank != first_failed_) {
    if (process.held.size() + text.size() <= kMaxHeldBytes) {
      process.held += text;
    }
    return;
  }
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void Supervisor::read_output(RankProcess& process, OutputPipe& output) {
  char buffer[1 << 14];
  for (;;) {
    const ssize_t count = ::read(output.descriptor, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      return;
    }
    if (count <= 0) {
      ::close(output.descriptor);
      output.descriptor = -1;
      if (!output.pending.empty()) {
        emit(process, output.pending);
      }
      return;
    }
    output.pending.append(buffer, static_cast<std::size_t>(count));
    std::size_t begin = 0;
    for (std::size_t end = output.pending.find('\n'); end != std::string::npos;
         end = output.pending.find('\n', begin)) {
      emit(process, std::string_view(output.pending).substr(begin, end - begin));
      begin = end + 1;
    }
    output.pending.erase(0, begin);
    if (output.pending.size() > kMaxLineBytes) {
      emit(process, output.pending);
      output.pending.clear();
    }
  }
}

void Supervisor::poll_outputs() {
  std::vector<pollfd> waiting;
  for (const RankProcess& process : processes_) {
    for (const OutputPipe& output : process.outputs) {
      if (output.descriptor >= 0) {
        waiting.push_back({output.descriptor, POLLIN, 0});
      }
    }
  }
  ::poll(waiting.data(), waiting.size(), kPollMs);
}

bool Supervisor::ended_by_us(const RankProcess& process) {
  if (!process.was_told_to_end) {
    return false;
  }
  const int status = *process.wait_status;
  return WIFSIGNALED(status) ? WTERMSIG(status) == SIGTERM || process.was_killed
                             : WEXITSTATUS(status) == exit_code(ErrorKind::kInterrupted);
}

int Supervisor::wait() {
  bool running = true;
  while (running) {
    poll_outputs();
    // Deaths before words: what the others say about a death is only worth showing if it turns out
    // to be a failure of their own.
    running = reap();
    interrupted_ = interrupted_ || interrupted();
    end_others();
    kill_the_slow();
    for (RankProcess& process : processes_) {
      for (OutputPipe& output : process.outputs) {
        if (output.descriptor >= 0) {
          read_output(process, output);
        }
      }
    }
  }
  return verdict();
}

int Supervisor::verdict() {
  if (interrupted_) {
    throw_if_interrupted();
  }
  const int peer_code = exit_code(ErrorKind::kPeer);
  int code = 0;
  const RankProcess* killed = nullptr;
  for (const RankProcess& process : processes_) {
    if (!failed(process) || ended_by_us(process)) {
      continue;
    }
    if (WIFSIGNALED(*process.wait_status)) {
      killed = killed == nullptr || process.rank == first_failed_ ? &process : killed;
      continue;
    }
    const int own = WEXITSTATUS(*process.wait_status);
    if (own != peer_code && !process.held.empty()) {
      std::fwrite(process.held.data(), 1, process.held.size(), stderr);
    }
    const bool tells_more = code == 0 || code == peer_code;
    code = tells_more ? own : code;
    log_debug("--launch: rank {} ended with exit code {}", process.rank, own);
  }
  if (code != 0 && code != peer_code) {
    return code;
  }
  if (killed != nullptr) {
    const int number = WTERMSIG(*killed->wait_status);
    fail(ErrorKind::kPeer,
         "--launch: rank {} (process {}) was killed by signal {} ({}){}; the other ranks were "
         "ended, "
         "what is finished is kept, run the same command again",
         killed->rank, killed->pid, number, ::strsignal(number),
         number == SIGKILL ? ", perhaps for lack of memory" : "");
  }
  return code;
}

}  // namespace

int launch(const LaunchOptions& options) {
  if (options.num_ranks < 1) {
    fail(ErrorKind::kUsage, "--launch: {} ranks, expected at least 1", options.num_ranks);
  }
  Supervisor supervisor(options);
  supervisor.start();
  return supervisor.wait();
}

}  // namespace puzzle
