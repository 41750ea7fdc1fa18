#include "puzzle/arch/engine_table.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace puzzle {
namespace {

EngineCell llama_cell(ExportTarget target, LayerPosition position, const char* block) {
  return engine_cell(target, find_engine_model("Llama").spec, position, parse_block(block));
}

TEST(EngineTable, HasEveryPairOfKindsOnce) {
  const std::vector<BlockSpec> blocks = engine_blocks();
  EXPECT_EQ(std::set(blocks.begin(), blocks.end()).size(), 16U);
  std::set<std::string> words;
  for (const BlockSpec& block : blocks) {
    words.insert(engine_block_words(block.attention) + "/" + engine_block_words(block.ffn));
  }
  EXPECT_EQ(words.size(), 16U);
}

// From docs/formats.md, by hand.
TEST(EngineTable, CellsAreThoseOfTheFormats) {
  const auto words = [](ExportTarget target, LayerPosition position, const char* block) {
    const EngineCell cell = llama_cell(target, position, block);
    const char* kind = cell.kind == CellKind::kNative    ? "native"
                       : cell.kind == CellKind::kLowered ? "lowered: "
                                                         : "refused: ";
    return kind + cell.words;
  };
  using enum ExportTarget;
  using enum LayerPosition;
  EXPECT_EQ(words(kDeci, kFirst, "kv4/w512"), "native");
  EXPECT_EQ(words(kDeci, kFirst, "none/w96"), "lowered: no attention as a matrix of zeros");
  EXPECT_EQ(words(kDeci, kMiddle, "none/w96"), "native");
  EXPECT_EQ(words(kDeci, kLast, "kv2/none"), "lowered: no FFN as one of zeros");
  EXPECT_EQ(words(kDeci, kMiddle, "none/none"), "lowered: left out of the file");
  EXPECT_EQ(words(kDeci, kMiddle, "linear/linear"),
            "lowered: linear FFN as a gated one whose gate is constant");
  for (const BlockSpec& block : engine_blocks()) {
    EXPECT_EQ(words(kNemotronNas, kFirst, block.name().c_str()), "native");
  }
  EXPECT_EQ(words(kPadded, kLast, "kv2/w96"), "lowered: KV heads repeated; FFN padded with zeros");
  EXPECT_EQ(words(kPadded, kFirst, "none/w512"), "lowered: no attention as one of zeros");
  EXPECT_EQ(words(kPadded, kFirst, "linear/none"), "lowered: linear attention as the layer's FFN");
  EXPECT_EQ(words(kPadded, kFirst, "linear/w512"),
            "lowered: linear attention as the FFN of a layer inserted before");
  EXPECT_EQ(words(kAnyModel, kFirst, "none/w96"), "native");
  EXPECT_EQ(words(kAnyModel, kMiddle, "kv4/linear"),
            "refused: a linear sub-block, which no reader of block_configs has");
  const EngineCell qwen =
      engine_cell(kDeci, find_engine_model("Qwen3, tied").spec, kMiddle, parse_block("kv4/w512"));
  EXPECT_EQ(qwen.kind, CellKind::kRefused);
  EXPECT_THAT(qwen.words, testing::HasSubstr("norms (Qwen3)"));
}

}  // namespace
}  // namespace puzzle
