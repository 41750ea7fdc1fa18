#include "puzzle/base/folder_lock.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

TEST(FolderLock, ASecondOneIsRefusedAndToldWhoHasIt) {
  const test::TempDir folder;
  {
    const FolderLock first(folder.path());
    EXPECT_PUZZLE_ERROR(const FolderLock second(folder.path()), ErrorKind::kIo,
                        fmt::format("process {} of ", ::getpid()));
    const test::TempDir other;
    EXPECT_NO_THROW(const FolderLock elsewhere(other.path()));
  }
  EXPECT_NO_THROW(const FolderLock later(folder.path()));
}

TEST(FolderLock, AKilledProcessHoldsNothing) {
  const test::TempDir folder;
  const pid_t child = ::fork();
  if (child == 0) {
    const FolderLock held(folder.path());
    ::_exit(0);  // without its destructor, as when killed
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_NO_THROW(const FolderLock later(folder.path()));
}

TEST(FolderLock, NeedsAFolder) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR(const FolderLock lock(folder / "none"), ErrorKind::kIo,
                      "none/lock: cannot create it");
}

}  // namespace
}  // namespace puzzle
