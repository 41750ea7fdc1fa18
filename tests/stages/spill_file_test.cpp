#include "puzzle/stages/spill_file.h"

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/file_size_limit.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::span<const std::byte> spill_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(SpillFile, GivesBackWhatWasWrittenLast) {
  const test::TempDir folder;
  SpillFile file(folder / "new" / "folder", 12, "states");
  file.write(0, spill_bytes("abcdef"));
  file.write(6, spill_bytes("uvwxyz"));
  file.write(3, spill_bytes("DEF"));
  std::string text(8, ' ');
  file.read(1, std::as_writable_bytes(std::span(text.data(), text.size())));
  EXPECT_EQ(text, "bcDEFuvw");
}

TEST(SpillFile, HasNoNameOnTheDisk) {
  const test::TempDir folder;
  SpillFile file(folder.path(), 1 << 20, "states");
  file.write(0, spill_bytes("abc"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SpillFile, SaysEarlyWhatItNeedsAndWhatThereIs) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR(SpillFile(folder.path(), std::int64_t{1} << 60, "states of 5 tokens"),
                      ErrorKind::kIo, "states of 5 tokens: needs 1024");
  EXPECT_PUZZLE_ERROR(SpillFile("/proc/spill", 10, "states"), ErrorKind::kIo, "/proc/spill");
}

TEST(SpillFile, ReadingPastTheEndIsAnError) {
  const test::TempDir folder;
  const SpillFile file(folder.path(), 4, "states");
  std::vector<std::byte> bytes(8);
  EXPECT_PUZZLE_ERROR(file.read(0, bytes), ErrorKind::kIo, "shorter than expected");
}

TEST(SpillFile, ADiskThatFillsUpIsAnError) {
  const test::TempDir folder;
  SpillFile file(folder.path(), 4, "states");
  const test::FileSizeLimit limit(4096);
  const std::string text(8192, 'x');
  EXPECT_PUZZLE_ERROR(file.write(0, spill_bytes(text)), ErrorKind::kIo,
                      "states: scratch file in " + folder.path().string() + ": cannot write");
}

}  // namespace
}  // namespace puzzle
