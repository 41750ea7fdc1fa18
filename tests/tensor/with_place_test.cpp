#include "puzzle/tensor/with_place.h"

#include <cstdint>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(WithPlace, GivesBackWhatTheWorkGives) {
  EXPECT_EQ(with_place("stage", [] { return 3; }), 3);
  int calls = 0;
  with_place("stage", [&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

TEST(WithPlace, NamesThePlaceAndWhoHasToAct) {
  const at::Tensor negative = -at::eye(3);
  EXPECT_PUZZLE_ERROR(with_place("stage, layer 3", [&] { return at::linalg_cholesky(negative); }),
                      ErrorKind::kNumeric, "stage, layer 3: linalg.cholesky");
  EXPECT_PUZZLE_ERROR(with_place("stage", [] { return at::ones({2, 3}).mm(at::ones({2, 3})); }),
                      ErrorKind::kInternal, "stage: ");
  EXPECT_PUZZLE_ERROR(with_place("stage", [] { return at::empty({std::int64_t{1} << 50}); }),
                      ErrorKind::kIo, "stage: out of memory: ");
  EXPECT_PUZZLE_ERROR(with_place("stage", []() -> int { throw std::bad_alloc(); }), ErrorKind::kIo,
                      "stage: out of memory");
}

TEST(WithPlace, TheInnermostPlaceCounts) {
  EXPECT_PUZZLE_ERROR(with_place("stage",
                                 [] {
                                   with_place("stage, layer 1",
                                              [] { (void)at::ones({2, 3}).mm(at::ones({2, 3})); });
                                 }),
                      ErrorKind::kInternal, "stage, layer 1: ");
  try {
    with_place("stage", [] { fail(ErrorKind::kUsage, "option: 3, expected 2"); });
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "option: 3, expected 2");
  }
}

}  // namespace
}  // namespace puzzle
