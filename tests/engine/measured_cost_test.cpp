#include "puzzle/engine/measured_cost.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(MeasuredCost, NamesSubblocksByKindAndShape) {
  EXPECT_EQ(subblock_name(AttentionSpec::gqa(3)), "attention/kv3");
  EXPECT_EQ(subblock_name(AttentionSpec::linear()), "attention/linear");
  EXPECT_EQ(subblock_name(FfnSpec::swiglu(768)), "ffn/w768");
  EXPECT_EQ(subblock_name(FfnSpec::none()), "ffn/none");
}

TEST(MeasuredCost, AcceptsExactlyTheNamesItMakes) {
  for (const char* name : {"attention/kv3", "attention/none", "ffn/w768", "ffn/linear", "fixed"}) {
    EXPECT_NO_THROW(check_subblock_name(name, "t")) << name;
  }
  for (const char* name : {"", "kv3", "attention", "attention/", "attention/w768", "ffn/kv3",
                           "attention/kv03", "Fixed", "fixed/", "ffn/w0"}) {
    EXPECT_PUZZLE_ERROR(check_subblock_name(name, "t.json"), ErrorKind::kFormat, "t.json");
  }
}

TEST(MeasuredCost, PhaseNamesGoBothWays) {
  EXPECT_EQ(parse_phase("prefill", "t"), Phase::kPrefill);
  EXPECT_EQ(parse_phase(phase_name(Phase::kGenerate), "t"), Phase::kGenerate);
  EXPECT_PUZZLE_ERROR((void)parse_phase("decode", "t"), ErrorKind::kFormat,
                      "t: phase 'decode', expected prefill or generate");
}

}  // namespace
}  // namespace puzzle
