#include "puzzle/dist/launch.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <signal.h>

#include "puzzle/base/interrupt.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using testing::HasSubstr;
using testing::Not;

LaunchOptions role_options(const std::string& role, int num_ranks) {
  return {.num_ranks = num_ranks, .arguments = {role}, .program = PUZZLE_DIST_RANK};
}

LaunchOptions shell_options(const std::string& script, int num_ranks) {
  return {.num_ranks = num_ranks, .arguments = {"-c", script}, .program = "/bin/sh"};
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Launch, GivesStdoutToRankZeroAndNamesTheOthers) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = launch(role_options("outputs", 2));
  const std::string out = testing::internal::GetCapturedStdout();
  const std::string err = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, 0);
  EXPECT_EQ(out, "{\"result\": 1}\n");
  EXPECT_THAT(err, HasSubstr("rank 0: logged\n"));
  EXPECT_THAT(err, HasSubstr("rank 1: logged\n"));
  EXPECT_THAT(err, HasSubstr("rank 0: bare\n"));
  EXPECT_THAT(err, HasSubstr("rank 1: spoken\n"));
  EXPECT_THAT(err, HasSubstr("rank 1: unfinished\n"));
  EXPECT_THAT(err, Not(HasSubstr("rank 1: rank 1")));
}

TEST(Launch, StartsThisProgramUnlessToldOtherwise) {
  testing::internal::CaptureStdout();
  const int code =
      launch({.num_ranks = 1, .arguments = {"--gtest_list_tests", "--gtest_filter=Launch.*"}});
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("StartsThisProgram"));
  EXPECT_EQ(code, 0);
}

TEST(Launch, SetsTheLaunchersVariables) {
  ::setenv("TORCHELASTIC_RUN_ID", "outer", 1);
  ::setenv("RANK", "7", 1);
  testing::internal::CaptureStdout();
  const int code =
      launch(shell_options("echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR "
                           "${TORCHELASTIC_RUN_ID:-none} $OMP_WAIT_POLICY; test $MASTER_PORT -gt 0",
                           2));
  const std::string out = testing::internal::GetCapturedStdout();
  ::unsetenv("TORCHELASTIC_RUN_ID");
  ::unsetenv("RANK");
  EXPECT_EQ(code, 0);
  EXPECT_EQ(out, "0/2 0/2 127.0.0.1 none PASSIVE\n");
}

TEST(Launch, SharesTheCoresUnlessToldOtherwise) {
  const unsigned cores = std::max(1U, std::thread::hardware_concurrency());
  const auto threads_of_rank_zero = [](int num_ranks) {
    testing::internal::CaptureStdout();
    EXPECT_EQ(launch(shell_options("echo $OMP_NUM_THREADS $OMP_WAIT_POLICY", num_ranks)), 0);
    return testing::internal::GetCapturedStdout();
  };
  const char* const before = std::getenv("OMP_NUM_THREADS");
  const std::string kept = before == nullptr ? "" : before;
  ::unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(threads_of_rank_zero(1), std::to_string(cores) + " PASSIVE\n");
  EXPECT_EQ(threads_of_rank_zero(2), std::to_string(std::max(1U, cores / 2)) + " PASSIVE\n");
  EXPECT_EQ(threads_of_rank_zero(static_cast<int>(cores) + 1), "1 PASSIVE\n");
  ::setenv("OMP_NUM_THREADS", "5", 1);
  ::setenv("OMP_WAIT_POLICY", "ACTIVE", 1);
  EXPECT_EQ(threads_of_rank_zero(2), "5 ACTIVE\n");
  ::unsetenv("OMP_WAIT_POLICY");
  ::unsetenv("OMP_NUM_THREADS");
  if (before != nullptr) {
    ::setenv("OMP_NUM_THREADS", kept.c_str(), 1);
  }
}

TEST(Launch, EndsTheOthersAndReturnsTheCodeOfTheRankThatFailed) {
  testing::internal::CaptureStderr();
  const auto start = std::chrono::steady_clock::now();
  const int code = launch(role_options("format", 3));
  const std::string err = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, exit_code(ErrorKind::kFormat));
  EXPECT_LT(seconds_since(start), 20.0);
  EXPECT_THAT(err, HasSubstr("rank 1: broken.gguf: found nothing\n"));
}

TEST(Launch, PrefersTheCauseToWhatOthersSayAboutIt) {
  testing::internal::CaptureStderr();
  // Rank 0 reports a lost peer first; rank 1, which is the cause, ends a little later.
  EXPECT_EQ(
      launch(shell_options("if test $RANK = 0; then sleep 0.5; exit 7; fi; trap '' TERM; sleep 1; "
                           "echo cause >&2; exit 6",
                           2)),
      6);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "rank 1: cause\n");
}

TEST(Launch, NamesTheSignalThatKilledARank) {
  testing::internal::CaptureStderr();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_PUZZLE_ERROR(
      (void)launch(shell_options("if test $RANK = 1; then kill -9 $$; fi; exec sleep 30", 2)),
      ErrorKind::kPeer, "was killed by signal 9 (Killed)");
  EXPECT_LT(seconds_since(start), 5.0);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Launch, KillsARankThatDoesNotEnd) {
  LaunchOptions options = role_options("stubborn", 2);
  options.grace_s = 0.3;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(launch(options), exit_code(ErrorKind::kNumeric));
  EXPECT_LT(seconds_since(start), 20.0);
}

TEST(Launch, ReportsAProgramThatIsNotThere) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(launch({.num_ranks = 1, .arguments = {}, .program = "/nowhere/puzzle"}), 127);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("cannot execute the program"));
}

TEST(Launch, RefusesAGroupOfNone) {
  EXPECT_PUZZLE_ERROR((void)launch(role_options("outputs", 0)), ErrorKind::kUsage, "at least 1");
}

// In a process of its own, because the flag of base/interrupt.h stays set.
TEST(LaunchDeathTest, PassesASignalOnAndReportsIt) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto run = [] {
    const test::TempDir folder;
    install_interrupt_handlers();
    std::thread([&] {
      while (!std::filesystem::exists(folder / "ready-0") ||
             !std::filesystem::exists(folder / "ready-1")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      ::kill(::getpid(), SIGTERM);
    }).detach();
    LaunchOptions options = role_options("signal", 2);
    options.arguments.push_back(folder.path().string());
    try {
      std::_Exit(launch(options));
    } catch (const Error& error) {
      std::_Exit(exit_code(error.kind()));
    }
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(130), "stopped by a signal");
}

}  // namespace
}  // namespace puzzle
