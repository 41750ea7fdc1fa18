#include "report/check_page.h"

#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "support/temp_dir.h"

namespace puzzle::test {

void expect_sound_page(const std::string& page) {
  const TempDir folder;
  write_text_file(folder / "page.html", page);
  const std::string python = std::filesystem::exists(PUZZLE_PYTHON) ? PUZZLE_PYTHON : "python3";
  const std::string command = fmt::format("'{}' '{}/tests/report/check_page.py' '{}' 2>&1", python,
                                          PUZZLE_SOURCE_DIR, (folder / "page.html").string());
  std::FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) {
    output += static_cast<char>(c);
  }
  EXPECT_EQ(pclose(pipe), 0) << output;
}

}  // namespace puzzle::test
