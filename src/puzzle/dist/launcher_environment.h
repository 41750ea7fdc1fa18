// The variables that torchrun (--no-python) and `puzzle --launch` give to each rank. This is the
// only file of the project that reads the environment for options.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace puzzle {

struct LauncherEnvironment {
  int rank = 0;                   // RANK, in [0, world_size)
  int world_size = 1;             // WORLD_SIZE, >= 1
  int local_rank = 0;             // LOCAL_RANK, else rank % local_world_size; the GPU to take here
  int local_world_size = 1;       // LOCAL_WORLD_SIZE, else world_size
  std::string master_address;     // MASTER_ADDR, else 127.0.0.1
  std::uint16_t master_port = 0;  // MASTER_PORT
  bool agent_store = false;       // TORCHELASTIC_USE_AGENT_STORE: torchrun itself serves the store
  std::string restart_count;      // TORCHELASTIC_RESTART_COUNT, else "0": keeps attempts apart
  std::string network_interface;  // GLOO_SOCKET_IFNAME, empty: chosen from the address
};

// Nothing where neither RANK nor WORLD_SIZE is set: a process on its own. Throws Error(kUsage) with
// the variable's name where one is missing or not a number in its range.
[[nodiscard]] std::optional<LauncherEnvironment> read_launcher_environment();

}  // namespace puzzle
