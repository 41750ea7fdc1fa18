// Progress of anything long: a live line with rate and ETA on a terminal, a plain line now and then
// elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace puzzle {

// Off for --quiet and for ranks other than 0. Set once at start-up.
void set_progress_enabled(bool enabled);

// Clears the live line so that a log line can be written; used by log.cpp.
void erase_progress_line();

// Counts units of work of one stage, e.g. Progress("score", 240, "candidates"). Work found already
// done by a resumed run is `skip`ped: it counts as done but not towards the rate.
class Progress {
 public:
  Progress(std::string name, std::int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Also the place where a pending SIGINT/SIGTERM is noticed: throws Error(kInterrupted).
  void advance(std::int64_t units = 1, const std::string& note = "");
  void skip(std::int64_t units);

 private:
  void show(bool last);

  std::string name_;
  std::string unit_;
  std::string note_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  std::int64_t skipped_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point shown_;
};

}  // namespace puzzle
