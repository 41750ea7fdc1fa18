// `puzzle --launch N …`: N ranks of this program on this machine, looked after until they end.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace puzzle {

struct LaunchOptions {
  int num_ranks = 2;                     // >= 1
  std::vector<std::string> arguments{};  // of every rank, without the program's name and --launch
  std::filesystem::path program{};       // empty: this very program
  double grace_s = 10.0;                 // between SIGTERM and SIGKILL when ranks have to be ended
};

// Starts the ranks with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT
// (a free port) set; where unset, OMP_NUM_THREADS becomes the cores divided by the ranks.
//
// Rank 0's stdout is this process's (results); everything else goes to stderr line by line, opened
// by "rank N: " unless it starts so already. Stdin is empty. When one rank fails, the others are
// ended, and what those say about it is dropped, so that one error is left to read. A SIGINT or
// SIGTERM noticed by base/interrupt.h is passed on once. Ranks die with this process.
//
// Returns 0 if all ranks did, else the exit code of the rank that failed by itself (its own message
// stands above), preferring any to 7, which other ranks report about it. Throws Error(kPeer) naming
// rank and signal where one was killed, Error(kInterrupted) after a signal to this process,
// Error(kUsage) for num_ranks < 1, Error(kIo) where processes or pipes cannot be made.
[[nodiscard]] int launch(const LaunchOptions& options);

}  // namespace puzzle
