// The machine a run ran on, for the record.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace puzzle {

struct MachineFacts {
  std::string cpu;                // model name; "unknown" where /proc does not say
  std::int64_t cores = 0;         // this process may run on (affinity), logical
  std::int64_t memory_bytes = 0;  // installed
  std::string os;                 // distribution's name
  std::string kernel;             // e.g. "Linux 6.1.0 x86_64"
  std::string gpus{};             // models of NVIDIA's, as its driver lists them; often empty

  bool operator==(const MachineFacts&) const = default;
};

// From /proc, /etc/os-release and uname.
[[nodiscard]] MachineFacts read_machine();

// What new processes may take now without swapping; 0 where /proc does not say.
[[nodiscard]] std::int64_t available_memory_bytes();

[[nodiscard]] nlohmann::json to_json(const MachineFacts& machine);
// Throws Error(kFormat).
[[nodiscard]] MachineFacts parse_machine(const nlohmann::json& value, const std::string& place);

// Now, in UTC: "2026-10-31T12:00:00Z".
[[nodiscard]] std::string utc_now();

}  // namespace puzzle
