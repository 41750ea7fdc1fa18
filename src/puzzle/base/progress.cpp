#include "puzzle/base/progress.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "puzzle/base/interrupt.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

std::atomic<bool> progress_enabled{true};
std::atomic<bool> line_is_shown{false};

bool stderr_is_terminal() {
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  return terminal;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void set_progress_enabled(bool enabled) { progress_enabled = enabled; }

void erase_progress_line() {
  if (line_is_shown.exchange(false)) {
    std::fputs("\r\033[K", stderr);
  }
}

Progress::Progress(std::string name, std::int64_t total, std::string unit)
    : name_(std::move(name)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

Progress::~Progress() {
  if (done_ > skipped_) {
    show(true);
  }
}

void Progress::advance(std::int64_t units, const std::string& note) {
  done_ += units;
  note_ = note;
  const double interval_s = stderr_is_terminal() ? 0.2 : 20.0;
  if (seconds_since(shown_) >= interval_s) {
    shown_ = std::chrono::steady_clock::now();
    show(false);
  }
  throw_if_interrupted();
}

void Progress::skip(std::int64_t units) {
  done_ += units;
  skipped_ += units;
}

void Progress::show(bool last) {
  if (!progress_enabled) {
    return;
  }
  const double elapsed_s = seconds_since(start_);
  const auto counted = static_cast<double>(done_ - skipped_);
  const double rate = elapsed_s > 0 ? counted / elapsed_s : 0.0;
  std::string line = fmt::format("{}: {}/{} {}", name_, done_, total_, unit_);
  if (last) {
    line += fmt::format(" in {}", human_seconds(elapsed_s));
  } else if (rate > 0) {
    line += fmt::format(
        ", {:.3g}/s, ETA {}", rate,
        human_seconds(static_cast<double>(std::max<std::int64_t>(0, total_ - done_)) / rate));
  }
  if (!note_.empty()) {
    line += ", " + note_;
  }
  if (stderr_is_terminal() && !last) {
    fmt::print(stderr, "\r\033[K{}", line);
    line_is_shown = true;
  } else {
    erase_progress_line();
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

}  // namespace puzzle
