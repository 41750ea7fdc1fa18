// One rank of `puzzle --launch`: a process with its environment and the read ends of its output.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "puzzle/dist/launch.h"

namespace puzzle {

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

// Forks and executes rank `process.rank` of options.num_ranks, in a process group of its own and
// with an empty stdin; it gets SIGTERM when the calling thread ends. stderr, and except on rank 0
// stdout, arrive in process.outputs, non-blocking. A program that cannot be executed ends with code
// 127. Throws Error(kIo); what process.outputs holds then is the caller's to close.
void start_rank_process(const LaunchOptions& options, int port, RankProcess& process);

}  // namespace puzzle
