#include "puzzle/base/progress.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/log.h"

namespace puzzle {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What a block writes to stderr; in tests that is a file, not a terminal.
template <class Block>
std::string stderr_of(Block&& block) {
  ::testing::internal::CaptureStderr();
  block();
  return ::testing::internal::GetCapturedStderr();
}

TEST(Progress, EndsWithOnePlainLine) {
  const std::string text = stderr_of([] {
    Progress progress("score", 3, "candidates");
    progress.advance();
    progress.advance(2, "layer 2");
  });
  EXPECT_THAT(text, StartsWith("score: 3/3 candidates in "));
  EXPECT_THAT(text, HasSubstr(", layer 2\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  EXPECT_EQ(text.find('\r'), std::string::npos) << "no terminal, no escape codes";
}

TEST(Progress, SaysNothingWhereNothingWasLeftToDo) {
  EXPECT_EQ(stderr_of([] {
              Progress progress("score", 3, "candidates");
              progress.skip(3);
            }),
            "");
}

TEST(Progress, CanBeSwitchedOff) {
  set_progress_enabled(false);
  EXPECT_EQ(stderr_of([] { Progress("score", 1, "candidates").advance(); }), "");
  set_progress_enabled(true);
}

TEST(Log, MarksWarningsAndKeepsToTheLevel) {
  const auto all = [] {
    log_debug("{} tokens", 1);
    log_info("{} tokens", 2);
    log_warning("{} tokens", 3);
  };
  EXPECT_EQ(stderr_of(all), "2 tokens\nwarning: 3 tokens\n");
  set_log_level(LogLevel::kQuiet);
  EXPECT_EQ(stderr_of(all), "");
  set_log_level(LogLevel::kDebug);
  set_log_prefix("rank 1: ");
  EXPECT_EQ(stderr_of(all), "rank 1: 1 tokens\nrank 1: 2 tokens\nrank 1: warning: 3 tokens\n");
  set_log_prefix("");
  set_log_level(LogLevel::kInfo);
}

TEST(InterruptDeathTest, FirstSignalAsksForAStopAtTheNextStep) {
  const auto run = [] {
    install_interrupt_handlers();
    if (interrupted()) {
      std::_Exit(1);
    }
    ::raise(SIGINT);
    try {
      Progress("score", 3, "candidates").advance();
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(exit_code(error.kind()));
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), ::testing::ExitedWithCode(130), "run the same command again");
}

TEST(InterruptDeathTest, SecondSignalEndsAtOnce) {
  const auto run = [] {
    install_interrupt_handlers();
    ::raise(SIGINT);
    ::raise(SIGINT);
    std::_Exit(0);
  };
  EXPECT_EXIT(run(), ::testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace puzzle
