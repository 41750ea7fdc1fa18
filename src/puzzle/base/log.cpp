#include "puzzle/base/log.h"

#include <cstdio>
#include <mutex>

#include "puzzle/base/progress.h"

namespace puzzle {
namespace {

struct LogState {
  std::mutex mutex;
  LogLevel level = LogLevel::kInfo;
  std::string prefix;
};

LogState& log_state() {
  static LogState state;
  return state;
}

}  // namespace

void set_log_level(LogLevel level) { log_state().level = level; }

void set_log_prefix(const std::string& prefix) { log_state().prefix = prefix; }

void log_line(LogLevel level, std::string_view message) {
  LogState& state = log_state();
  if (level < state.level) {
    return;
  }
  const std::lock_guard lock(state.mutex);
  erase_progress_line();
  const char* mark = level == LogLevel::kWarning ? "warning: " : "";
  const std::string line = fmt::format("{}{}{}\n", state.prefix, mark, message);
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

}  // namespace puzzle
