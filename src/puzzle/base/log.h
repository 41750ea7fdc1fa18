// Lines for people, on stderr; stdout belongs to results.
#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

namespace puzzle {

enum class LogLevel { kDebug, kInfo, kWarning, kQuiet };

// Set once at start-up, before any thread logs.
void set_log_level(LogLevel level);
// Put before every line, e.g. "rank 1: "; empty for a group of one.
void set_log_prefix(const std::string& prefix);

void log_line(LogLevel level, std::string_view message);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace puzzle
