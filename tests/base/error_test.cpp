#include "puzzle/base/error.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

constexpr ErrorKind kAllKinds[] = {ErrorKind::kUsage,       ErrorKind::kFormat,  ErrorKind::kIo,
                                   ErrorKind::kInfeasible,  ErrorKind::kNumeric, ErrorKind::kPeer,
                                   ErrorKind::kInterrupted, ErrorKind::kInternal};

TEST(Error, EveryKindHasItsOwnExitCodeAndName) {
  std::set<int> codes;
  std::set<std::string_view> names;
  for (const ErrorKind kind : kAllKinds) {
    codes.insert(exit_code(kind));
    names.insert(kind_name(kind));
    EXPECT_GT(exit_code(kind), 1);
  }
  EXPECT_EQ(codes.size(), std::size(kAllKinds));
  EXPECT_EQ(names.size(), std::size(kAllKinds));
}

TEST(Error, ExitCodesAreThoseOfTheManual) {
  EXPECT_EQ(exit_code(ErrorKind::kUsage), 2);
  EXPECT_EQ(exit_code(ErrorKind::kFormat), 3);
  EXPECT_EQ(exit_code(ErrorKind::kIo), 4);
  EXPECT_EQ(exit_code(ErrorKind::kInfeasible), 5);
  EXPECT_EQ(exit_code(ErrorKind::kNumeric), 6);
  EXPECT_EQ(exit_code(ErrorKind::kPeer), 7);
  EXPECT_EQ(exit_code(ErrorKind::kInterrupted), 130);
  EXPECT_EQ(exit_code(ErrorKind::kInternal), 70);
}

TEST(Error, FailFormatsItsMessage) {
  EXPECT_PUZZLE_ERROR(fail(ErrorKind::kFormat, "{}: found {}", "a.gguf", 3), ErrorKind::kFormat,
                      "a.gguf: found 3");
}

TEST(Error, BrokenInvariantNamesConditionAndPlace) {
  const int rows = 3;
  PUZZLE_CHECK(rows == 3, "never formatted: {}", rows);
  EXPECT_PUZZLE_ERROR(PUZZLE_CHECK(rows == 4, "{} rows", rows), ErrorKind::kInternal,
                      "rows == 4 does not hold: 3 rows; this is a bug in puzzle");
  EXPECT_PUZZLE_ERROR(PUZZLE_CHECK(rows == 4, "{} rows", rows), ErrorKind::kInternal,
                      "error_test.cpp:");
}

}  // namespace
}  // namespace puzzle
