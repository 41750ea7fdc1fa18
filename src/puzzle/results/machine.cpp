#include "puzzle/results/machine.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/utsname.h>

#include "puzzle/base/cores.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

// The value of the first line "name<separator>value" of a small system file; empty if there is
// none.
std::string find_line_value(const char* path, std::string_view name, char separator) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t at = line.find(separator);
    if (at != std::string::npos && trim(std::string_view(line).substr(0, at)) == name) {
      std::string value(trim(std::string_view(line).substr(at + 1)));
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
        value = value.substr(1, value.size() - 2);
      }
      return value;
    }
  }
  return {};
}

// "MemTotal:  16384 kB"
std::int64_t read_memory_bytes(std::string_view name) {
  const std::string value = find_line_value("/proc/meminfo", name, ':');
  std::int64_t kib = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') {
      break;
    }
    kib = kib * 10 + (c - '0');
  }
  return kib * 1024;
}

std::string read_gpus() {
  std::vector<std::string> gpus;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", none)) {
    gpus.push_back(find_line_value((entry.path() / "information").c_str(), "Model", ':'));
  }
  std::sort(gpus.begin(), gpus.end());
  return join(gpus, ", ");
}

}  // namespace

MachineFacts read_machine() {
  MachineFacts machine;
  machine.cpu = find_line_value("/proc/cpuinfo", "model name", ':');
  if (machine.cpu.empty()) {
    machine.cpu = "unknown";  // ARM kernels give no model name
  }
  machine.cores = usable_cores();
  machine.memory_bytes = read_memory_bytes("MemTotal");
  machine.os = find_line_value("/etc/os-release", "PRETTY_NAME", '=');
  utsname names{};
  if (uname(&names) == 0) {
    machine.kernel = fmt::format("{} {} {}", names.sysname, names.release, names.machine);
  }
  machine.gpus = read_gpus();
  return machine;
}

std::int64_t available_memory_bytes() { return read_memory_bytes("MemAvailable"); }

Json to_json(const MachineFacts& machine) {
  Json json = {{"cpu", machine.cpu},
               {"cores", machine.cores},
               {"memory_bytes", machine.memory_bytes},
               {"os", machine.os},
               {"kernel", machine.kernel}};
  if (!machine.gpus.empty()) {  // absent as in records of before
    json["gpus"] = machine.gpus;
  }
  return json;
}

MachineFacts parse_machine(const Json& value, const std::string& place) {
  MachineFacts machine;
  machine.cpu = json_string(value, "cpu", place);
  machine.cores = json_int(value, "cores", place);
  machine.memory_bytes = json_int(value, "memory_bytes", place);
  machine.os = json_string(value, "os", place);
  machine.kernel = json_string(value, "kernel", place);
  machine.gpus = json_string(value, "gpus", place, "");
  return machine;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {text.data(), size};
}

}  // namespace puzzle
