#include "puzzle/engine/child_process.h"

#include <chrono>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

ChildProcessOptions shell(const std::string& script) { return {{"/bin/sh", "-c", script}, {}, {}}; }

bool happens_soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// False for zombies too: nobody may have reaped them yet.
bool runs(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  std::getline(file, text);
  const std::size_t state = text.rfind(')');
  return state != std::string::npos && text.substr(state + 2, 1) != "Z";
}

TEST(ChildProcess, KeepsBothOutputsAndTheExitStatus) {
  const ChildProcess child(shell("echo one; echo two >&2; echo three; exit 7"));
  EXPECT_TRUE(happens_soon([&] { return child.ended().has_value(); }));
  EXPECT_EQ(child.ended(), "exit status 7");
  EXPECT_EQ(child.log(), "one\ntwo\nthree\n");
  EXPECT_EQ(child.log_tail(2), "two\nthree");
  EXPECT_EQ(child.log_tail(9), "one\ntwo\nthree");
}

TEST(ChildProcess, NamesTheSignalThatEndedIt) {
  const ChildProcess child(shell("kill -SEGV $$"));
  EXPECT_TRUE(happens_soon([&] { return child.ended().has_value(); }));
  EXPECT_THAT(*child.ended(), testing::HasSubstr("signal 11 (Segmentation fault"));
}

TEST(ChildProcess, WritesItsLogToANamedFile) {
  const test::TempDir folder;
  ChildProcessOptions options = shell("echo kept");
  options.log_file = folder / "log";
  const ChildProcess child(options);
  EXPECT_TRUE(happens_soon([&] { return child.ended().has_value(); }));
  EXPECT_EQ(read_text_file(folder / "log"), "kept\n");
  options.log_file = "/nowhere/log";
  EXPECT_PUZZLE_ERROR(ChildProcess{options}, ErrorKind::kIo, "/nowhere/log: cannot be written");
}

TEST(ChildProcess, AddsToTheEnvironmentWithoutOverwriting) {
  ::setenv("PUZZLE_TEST_SET", "outer", 1);
  ChildProcessOptions options = shell("echo $PUZZLE_TEST_SET $PUZZLE_TEST_NEW");
  options.environment = {"PUZZLE_TEST_SET=inner", "PUZZLE_TEST_NEW=new"};
  const ChildProcess child(options);
  EXPECT_TRUE(happens_soon([&] { return child.ended().has_value(); }));
  EXPECT_EQ(child.log(), "outer new\n");
}

TEST(ChildProcess, TakesItsOwnChildrenAlong) {
  pid_t grandchild = 0;
  {
    const ChildProcess child(shell("sleep 1000 & echo $!; wait"));
    EXPECT_TRUE(happens_soon([&] { return child.log().ends_with("\n"); }));
    grandchild = static_cast<pid_t>(std::stol(child.log()));
    EXPECT_TRUE(runs(grandchild));
    EXPECT_EQ(child.ended(), std::nullopt);
  }
  EXPECT_TRUE(happens_soon([&] { return !runs(grandchild); }));
}

TEST(ChildProcess, DiesWithAParentThatDoesNotSayGoodbye) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const ChildProcess child(shell("exec sleep 1000"));
    const pid_t id = child.id();
    const bool written = ::write(ends[1], &id, sizeof id) == sizeof id;
    ::kill(written ? ::getpid() : 0, SIGKILL);
  }
  pid_t id = 0;
  ASSERT_EQ(::read(ends[0], &id, sizeof id), static_cast<ssize_t>(sizeof id));
  ::waitpid(parent, nullptr, 0);
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_TRUE(happens_soon([&] { return !runs(id); }));
}

TEST(ChildProcess, DoesNotInheritOpenFiles) {
  const test::TempDir folder;
  write_text_file(folder / "open", "");
  std::FILE* file = std::fopen((folder / "open").c_str(), "r");
  const ChildProcess child(shell("ls -l /proc/$$/fd"));
  EXPECT_TRUE(happens_soon([&] { return child.ended().has_value(); }));
  EXPECT_THAT(child.log(), testing::Not(testing::HasSubstr((folder / "open").string())));
  EXPECT_THAT(child.log(), testing::HasSubstr("/dev/null"));
  std::fclose(file);
}

TEST(ChildProcess, SaysWhyAProgramCannotBeStarted) {
  EXPECT_PUZZLE_ERROR(ChildProcess({{"/nowhere/program"}, {}, {}}), ErrorKind::kIo,
                      "/nowhere/program: cannot be started: No such file or directory");
  EXPECT_PUZZLE_ERROR(ChildProcess({{"/etc/passwd"}, {}, {}}), ErrorKind::kIo, "Permission denied");
}

TEST(ChildProcess, FindsProgramsAsTheShellDoes) {
  EXPECT_EQ(find_program("/bin/sh"), std::filesystem::path("/bin/sh"));
  ASSERT_TRUE(find_program("sh"));
  EXPECT_EQ(find_program("sh")->filename(), "sh");
  EXPECT_EQ(find_program("/etc/passwd"), std::nullopt);
  EXPECT_EQ(find_program("no-such-program-anywhere"), std::nullopt);
  EXPECT_EQ(find_program("/tmp"), std::nullopt);
}

}  // namespace
}  // namespace puzzle
