// `puzzle export --check` as a user runs it.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "e2e/tiny_run.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

using test::ProgramResult;
using test::run_program;

// The last bytes of a file are those of a matrix.
void damage_weights(const fs::path& file) {
  constexpr std::size_t kDamaged = 4096;
  std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
  stream.seekp(-static_cast<std::streamoff>(kDamaged), std::ios::end);
  const std::vector<float> values(kDamaged / sizeof(float), 0.25F);
  stream.write(reinterpret_cast<const char*>(values.data()), kDamaged);
}

TEST(Check, ExportedFilesRunInTheirEnginesAndDamagedOnesAreFound) {
  if (std::system("'" PUZZLE_PYTHON "' -c 'import xllamacpp, transformers' > /dev/null 2>&1") !=
      0) {
    GTEST_SKIP() << PUZZLE_PYTHON " has no xllamacpp or no transformers";
  }
  const test::TempDir folder;
  test::make_run_inputs(folder.path());
  auto words = test::run_arguments("export", folder.path(), folder / "run");
  test::add_settings(words, {"repair_child=false", "train_child=false", "train_blocks=false",
                             "compare=[]", "score.method=gradient"});
  words.emplace_back("--check");
  const ProgramResult text = run_program(words);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, testing::HasSubstr("child.gguf (F32): "));
  EXPECT_THAT(text.out, testing::HasSubstr("child-hf (F32): transformers "));
  EXPECT_THAT(text.out, testing::HasSubstr(": agrees\n"));

  damage_weights(folder / "run/exports/child.gguf");
  words.emplace_back("--json");
  const ProgramResult damaged = run_program(words);
  EXPECT_EQ(damaged.exit_code, 3) << damaged.err;
  EXPECT_THAT(damaged.err, testing::HasSubstr("export --check: child.gguf: log-probabilities"));
  const Json checks = parse_json(damaged.out, "stdout").at("checks");
  ASSERT_EQ(checks.size(), 2U);
  EXPECT_EQ(checks[0].at("agrees"), false);
  EXPECT_GT(checks[0].at("largest_difference").get<double>(),
            checks[0].at("largest_expected").get<double>());
  EXPECT_EQ(checks[1].at("agrees"), true);
}

}  // namespace
}  // namespace puzzle
