#include "puzzle/dist/launcher_environment.h"

#include <cstdlib>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::int64_t kMaxRanks = 65536;
constexpr std::int64_t kMaxPort = 65535;

std::optional<std::string> launcher_variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

struct VariableRange {
  std::int64_t low;
  std::int64_t high;
};

std::int64_t parse_variable(const char* name, const std::string& text, VariableRange range) {
  const auto value = parse_number<std::int64_t>(text);
  if (!value || *value < range.low || *value > range.high) {
    fail(ErrorKind::kUsage, "environment: {} is '{}', expected a whole number from {} to {}", name,
         text, range.low, range.high);
  }
  return *value;
}

std::int64_t required_variable(const char* name, VariableRange range) {
  const std::optional<std::string> text = launcher_variable(name);
  if (!text) {
    fail(
        ErrorKind::kUsage,
        "environment: {} is not set, but RANK or WORLD_SIZE is; start with torchrun --no-python or "
        "puzzle --launch N, or unset them all",
        name);
  }
  return parse_variable(name, *text, range);
}

std::int64_t optional_variable(const char* name, VariableRange range, std::int64_t fallback) {
  const std::optional<std::string> text = launcher_variable(name);
  return text ? parse_variable(name, *text, range) : fallback;
}

}  // namespace

std::optional<LauncherEnvironment> read_launcher_environment() {
  if (!launcher_variable("RANK") && !launcher_variable("WORLD_SIZE")) {
    return std::nullopt;
  }
  LauncherEnvironment found;
  const std::int64_t world_size = required_variable("WORLD_SIZE", {1, kMaxRanks});
  const std::int64_t rank = required_variable("RANK", {0, world_size - 1});
  const std::int64_t local_size =
      optional_variable("LOCAL_WORLD_SIZE", {1, world_size}, world_size);
  found.world_size = static_cast<int>(world_size);
  found.rank = static_cast<int>(rank);
  found.local_world_size = static_cast<int>(local_size);
  found.local_rank =
      static_cast<int>(optional_variable("LOCAL_RANK", {0, local_size - 1}, rank % local_size));
  found.master_address = launcher_variable("MASTER_ADDR").value_or("127.0.0.1");
  if (world_size > 1) {
    found.master_port = static_cast<std::uint16_t>(required_variable("MASTER_PORT", {1, kMaxPort}));
  }
  found.agent_store = launcher_variable("TORCHELASTIC_USE_AGENT_STORE").value_or("False") == "True";
  found.restart_count = launcher_variable("TORCHELASTIC_RESTART_COUNT").value_or("0");
  found.network_interface = launcher_variable("GLOO_SOCKET_IFNAME").value_or("");
  return found;
}

}  // namespace puzzle
