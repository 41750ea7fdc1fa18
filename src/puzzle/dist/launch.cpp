#include "puzzle/dist/launch.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/free_port.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"
#include "puzzle/dist/rank_process.h"

namespace puzzle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPollMs = 50;
constexpr std::size_t kMaxHeldBytes = 1 << 20;  // per rank, of output that may turn out to matter
constexpr std::size_t kMaxLineBytes = 1 << 16;  // a longer line is passed on in pieces

class Supervisor {
 public:
  explicit Supervisor(const LaunchOptions& options) : options_(options) {}
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  void start();
  [[nodiscard]] int wait();

 private:
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
  const int port = find_free_port();  // should another program take it, the ranks say so
  processes_.resize(static_cast<std::size_t>(options_.num_ranks));
  for (int rank = 0; rank < options_.num_ranks; ++rank) {
    RankProcess& process = processes_[static_cast<std::size_t>(rank)];
    process.rank = rank;
    start_rank_process(options_, port, process);
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
