#include "puzzle/results/sqlite.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/file_size_limit.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

struct SqliteTest : ::testing::Test {
  test::TempDir folder;
  SqliteFile file{(folder / "rows.db").string(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE};

  void SetUp() override {
    file.execute("CREATE TABLE rows (text TEXT)");
    file.execute("INSERT INTO rows VALUES ('kept')");
  }

  void insert_much() const { file.execute("INSERT INTO rows VALUES (hex(zeroblob(100000)))"); }

  void expect_only_the_first_row() const {
    EXPECT_EQ(file.query_int("SELECT COUNT(*) FROM rows WHERE text = 'kept'"), 1);
    EXPECT_EQ(file.query_int("SELECT COUNT(*) FROM rows"), 1);
  }
};

TEST_F(SqliteTest, AFullDiskLosesNothingRecordedBefore) {
  file.execute("PRAGMA max_page_count = 8");
  EXPECT_PUZZLE_ERROR(insert_much(), ErrorKind::kIo,
                      (folder / "rows.db").string() + ": the disk is full");
  expect_only_the_first_row();
}

TEST_F(SqliteTest, AFailedWriteSaysWhyAndLosesNothingRecordedBefore) {
  {
    const test::FileSizeLimit limit(16384);
    EXPECT_PUZZLE_ERROR(insert_much(), ErrorKind::kIo, "is there room on the disk?");
  }
  expect_only_the_first_row();
}

}  // namespace
}  // namespace puzzle
