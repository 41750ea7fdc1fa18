// EXPECT_PUZZLE_ERROR(statement, kind, part): the statement throws puzzle::Error of that kind and
// the message holds `part`.
#pragma once

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "puzzle/base/error.h"

#define EXPECT_PUZZLE_ERROR(statement, expected_kind, part)               \
  do {                                                                    \
    try {                                                                 \
      statement;                                                          \
      ADD_FAILURE() << #statement " did not throw; expected: " << (part); \
    } catch (const ::puzzle::Error& error) {                              \
      EXPECT_EQ(error.kind(), expected_kind) << error.what();             \
      EXPECT_THAT(std::string(error.what()), ::testing::HasSubstr(part)); \
    }                                                                     \
  } while (false)
