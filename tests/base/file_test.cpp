#include "puzzle/base/file.h"

#include <cstdlib>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::size_t count_files(const std::filesystem::path& folder) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    (void)entry;
    ++count;
  }
  return count;
}

TEST(File, WritesAndReadsBack) {
  const test::TempDir folder;
  const std::string text("line\n\0binary\xff", 13);
  write_text_file(folder / "a.txt", text);
  EXPECT_EQ(read_text_file(folder / "a.txt"), text);
  write_text_file(folder / "a.txt", "");
  EXPECT_EQ(read_text_file(folder / "a.txt"), "");
  EXPECT_EQ(count_files(folder.path()), 1U);
}

TEST(File, AppearsOnlyByCommit) {
  const test::TempDir folder;
  write_text_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new, but never finished");
    EXPECT_EQ(file.size(), 23U);
    EXPECT_EQ(read_text_file(folder / "a"), "old");
  }
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_EQ(count_files(folder.path()), 1U) << "the temporary file was left behind";
  AtomicFile file(folder / "a");
  file.write("first ");
  file.write("second");
  file.commit();
  EXPECT_EQ(read_text_file(folder / "a"), "first second");
}

TEST(File, TwoWritersOfOneNameDoNotMix) {
  const test::TempDir folder;
  AtomicFile one(folder / "a");
  AtomicFile two(folder / "a");
  one.write("one");
  two.write("two");
  two.commit();
  one.commit();
  EXPECT_EQ(read_text_file(folder / "a"), "one");
  EXPECT_EQ(count_files(folder.path()), 1U);
}

TEST(File, ErrorsNameThePath) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR((void)read_text_file(folder / "absent"), ErrorKind::kIo,
                      (folder / "absent").string() + ": cannot open it: No such file");
  EXPECT_PUZZLE_ERROR((void)read_text_file(folder.path()), ErrorKind::kIo, "is a folder");
  EXPECT_PUZZLE_ERROR(write_text_file(folder / "no/such/folder", "x"), ErrorKind::kIo,
                      "no/such/folder: cannot create it");
  write_text_file(folder / "plain", "x");
  EXPECT_PUZZLE_ERROR(make_folder(folder / "plain"), ErrorKind::kIo, "cannot create the folder");
  EXPECT_PUZZLE_ERROR(make_folder(folder / "plain/below"), ErrorKind::kIo,
                      "cannot create the folder");
  make_folder(folder / "a/b/c");
  make_folder(folder / "a/b/c");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
}

TEST(File, TargetThatIsAFolderLeavesNothingBehind) {
  const test::TempDir folder;
  make_folder(folder / "taken/inside");
  EXPECT_PUZZLE_ERROR(write_text_file(folder / "taken", "x"), ErrorKind::kIo,
                      "taken: cannot rename it into place");
  EXPECT_EQ(count_files(folder.path()), 1U);
}

TEST(File, MappingShowsTheBytes) {
  const test::TempDir folder;
  write_text_file(folder / "a", "abc");
  const MappedFile file(folder / "a");
  ASSERT_EQ(file.bytes().size(), 3U);
  EXPECT_EQ(static_cast<char>(file.bytes()[2]), 'c');
  EXPECT_EQ(file.path(), folder / "a");
  write_text_file(folder / "a", "xyz");  // replaced by rename: the mapping keeps the old file
  EXPECT_EQ(static_cast<char>(file.bytes()[0]), 'a');
  write_text_file(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

// A pipe or device has no size to map: reading it as text must still give its content.
TEST(File, ReadsWhatCannotBeMapped) {
  const test::TempDir folder;
  const std::filesystem::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int descriptor = ::open(pipe.c_str(), O_WRONLY);
    const bool written = ::write(descriptor, "through a pipe", 14) == 14;
    ::_exit(written ? 0 : 1);
  }
  EXPECT_EQ(read_text_file(pipe), "through a pipe");
  EXPECT_EQ(::waitpid(child, nullptr, 0), child);
}

TEST(File, LeftoversOfKilledWritersAreRemovedAndNothingElse) {
  const test::TempDir folder;
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "killed");
    file.write("half");
    ::_exit(0);  // without destructors, as SIGKILL does it
  }
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  make_folder(folder / "deep");
  const std::string own = "living.tmp-" + std::to_string(::getpid()) + "-7";
  for (const std::string& name : {own, std::string("a.tmp-x"), std::string("b.tmp-999999999"),
                                  std::string("deep/c.tmp-999999999-0.gguf")}) {
    write_text_file(folder / name, "stays");
  }
  write_text_file(folder / "deep/d.tmp-999999999-3", "goes");
  const auto removed = remove_stale_temporaries(folder.path());
  ASSERT_EQ(removed.size(), 2U);
  for (const auto& path : removed) {
    EXPECT_FALSE(std::filesystem::exists(path)) << path;
  }
  EXPECT_EQ(count_files(folder.path()), 4U);
  EXPECT_TRUE(remove_stale_temporaries(folder / "nowhere").empty());
}

// As on a full disk: the write fails after 4,096 bytes.
TEST(FileDeathTest, FullDiskIsOneErrorAndLeavesTheOldFile) {
  const test::TempDir folder;
  write_text_file(folder / "a", "old");
  const auto write_much = [&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = 4096, .rlim_max = 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_text_file(folder / "a", std::string(100'000, 'x'));
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(exit_code(error.kind()));
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(write_much(), ::testing::ExitedWithCode(4), "a: cannot write it: File too large");
  EXPECT_EQ(read_text_file(folder / "a"), "old");
  EXPECT_EQ(count_files(folder.path()), 1U);
}

}  // namespace
}  // namespace puzzle
