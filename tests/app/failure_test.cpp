#include "puzzle/app/failure.h"

#include <filesystem>
#include <new>

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

using ::testing::HasSubstr;

template <class Throw>
Failure failure_of(Throw&& thrower) {
  try {
    thrower();
  } catch (...) {
    return current_failure("score");
  }
  return {};
}

TEST(Failure, OurOwnErrorsStayAsTheyAre) {
  const Failure failure = failure_of([] { fail(ErrorKind::kFormat, "a.gguf: is empty"); });
  EXPECT_EQ(failure.kind, ErrorKind::kFormat);
  EXPECT_EQ(failure.message, "a.gguf: is empty");
}

TEST(Failure, LibtorchsErrorsNameTheStageOnOneLine) {
  const Failure failure = failure_of([] { TORCH_CHECK(false, "sizes differ"); });
  EXPECT_EQ(failure.kind, ErrorKind::kInternal);
  EXPECT_THAT(failure.message, HasSubstr("score: libtorch: sizes differ"));
  EXPECT_EQ(failure.message.find('\n'), std::string::npos);
  EXPECT_GT(failure.backtrace.size(), failure.message.size());
}

TEST(Failure, MemoryThatCannotBeHadIsNoBugOfOurs) {
  for (const Failure& failure :
       {failure_of([] {
          TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9");
        }),
        failure_of([] { throw std::bad_alloc(); })}) {
    EXPECT_EQ(failure.kind, ErrorKind::kIo);
    EXPECT_THAT(failure.message, HasSubstr("score: out of memory"));
    EXPECT_THAT(failure.message, HasSubstr("lower the stage's batch"));
  }
}

TEST(Failure, TheFileSystemsErrorsAreOfTheDisk) {
  const Failure failure =
      failure_of([] { std::filesystem::copy_file("/nowhere/a", "/nowhere/b"); });
  EXPECT_EQ(failure.kind, ErrorKind::kIo);
  EXPECT_THAT(failure.message, HasSubstr("/nowhere/a"));
}

}  // namespace
}  // namespace puzzle
