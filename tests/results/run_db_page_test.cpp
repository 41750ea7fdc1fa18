// docs/formats.md lists the tables of run.db as a new file has them.
#include <filesystem>
#include <map>
#include <sstream>
#include <string>

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "puzzle/base/file.h"
#include "puzzle/results/run_db.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

// Columns by table, those of the primary key between **.
using Tables = std::map<std::string, std::string>;

// Of rows like "| scores | **layer**, value |".
Tables page_tables() {
  const std::string page =
      read_text_file(std::filesystem::path(PUZZLE_SOURCE_DIR) / "docs/formats.md");
  std::istringstream lines(page.substr(page.find("\n## run.db\n")));
  Tables tables;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t middle = line.find(" | ", 2);
    if (line.starts_with("| ") && middle != std::string::npos) {
      tables[line.substr(2, middle - 2)] = line.substr(middle + 3, line.rfind(" |") - middle - 3);
    }
  }
  tables.erase("table");
  tables.erase("---");
  return tables;
}

int add_column(void* tables, int /*count*/, char** values, char** /*names*/) {
  std::string& columns = (*static_cast<Tables*>(tables))[values[0]];
  const std::string mark = std::string(values[2]) == "0" ? "" : "**";
  columns += (columns.empty() ? "" : ", ") + mark + values[1] + mark;
  return 0;
}

// As SQLite itself describes a file.
Tables file_tables(const std::filesystem::path& file) {
  sqlite3* handle = nullptr;
  EXPECT_EQ(sqlite3_open(file.c_str(), &handle), SQLITE_OK);
  Tables tables;
  EXPECT_EQ(sqlite3_exec(handle,
                         "SELECT s.name, c.name, c.pk FROM sqlite_schema s, "
                         "pragma_table_info(s.name) c WHERE s.type = 'table' ORDER BY c.cid",
                         add_column, &tables, nullptr),
            SQLITE_OK);
  sqlite3_close(handle);
  return tables;
}

TEST(RunDbPage, ListsTheTablesOfANewFile) {
  const test::TempDir folder;
  {
    const RunDb db(folder / "run.db");
  }
  EXPECT_EQ(page_tables(), file_tables(folder / "run.db"));
}

}  // namespace
}  // namespace puzzle
