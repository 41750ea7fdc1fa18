#include "puzzle/arch/block_spec.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(BlockSpec, NamesReadBack) {
  for (const char* name : {"kv3/w1536", "kv1/linear", "linear/none", "none/w32", "none/none"}) {
    EXPECT_EQ(parse_block(name).name(), name);
  }
  EXPECT_EQ(parse_block("kv3/w768"), (BlockSpec{AttentionSpec::gqa(3), FfnSpec::swiglu(768)}));
  EXPECT_EQ(parse_block("linear/none"), (BlockSpec{AttentionSpec::linear(), FfnSpec::none()}));
}

TEST(BlockSpec, EqualNeighboursShareOneEntryForPeople) {
  EXPECT_EQ(architecture_text({}), "");
  EXPECT_EQ(architecture_text(parse_blocks({"kv3/w64", "kv3/w64", "none/w32", "kv3/w64"})),
            "0-1 kv3/w64, 2 none/w32, 3 kv3/w64");
}

TEST(BlockSpec, OtherNamesAreRefused) {
  for (const char* name :
       {"kv0", "kv-1", "kv", "kv3x", "kv99999999999999999999", "KV3", "w3", ""}) {
    EXPECT_PUZZLE_ERROR(static_cast<void>(parse_attention(name)), ErrorKind::kFormat,
                        "expected kvN, linear or none");
  }
  for (const char* name : {"w0", "w", "w1.5", "kv1", ""}) {
    EXPECT_PUZZLE_ERROR(static_cast<void>(parse_ffn(name)), ErrorKind::kFormat,
                        "expected wN, linear or none");
  }
  EXPECT_PUZZLE_ERROR(static_cast<void>(parse_block("kv3")), ErrorKind::kFormat, "kv3/w768");
}

}  // namespace
}  // namespace puzzle
