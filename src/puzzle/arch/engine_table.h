// What becomes of every kind of block at every position in every format, from lowering.h alone: the
// table of docs/engines.md, each of whose cells a test runs in a real engine.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/model_spec.h"

namespace puzzle {

// A small parent that stands for all with the same biases and norms.
struct EngineModel {
  std::string_view name;   // "Llama"
  std::string_view words;  // what is particular about it, for people
  ModelSpec spec;
};
// Whose formats docs/engines.md lists; the first and the one with norms of q and k also block by
// block. 4 layers of 64 channels, 4 heads, FFN 512.
[[nodiscard]] const std::vector<EngineModel>& engine_models();
[[nodiscard]] const EngineModel& find_engine_model(std::string_view name);

// Every pair of attention {the parent's, fewer KV heads, linear, none} and FFN {the parent's,
// narrower, linear, none}. The narrower width is no multiple of 256, the parent's is.
[[nodiscard]] std::vector<BlockSpec> engine_blocks();
// "fewer KV heads", "no FFN": a block's halves in these words.
[[nodiscard]] std::string engine_block_words(const AttentionSpec& attention);
[[nodiscard]] std::string engine_block_words(const FfnSpec& ffn);

enum class LayerPosition { kFirst, kMiddle, kLast };
inline constexpr LayerPosition kLayerPositions[] = {LayerPosition::kFirst, LayerPosition::kMiddle,
                                                    LayerPosition::kLast};
[[nodiscard]] std::string_view layer_position_name(LayerPosition position);
// Layer 0, 2 or 3; layer 1 keeps the parent's block.
[[nodiscard]] std::size_t layer_at(LayerPosition position);

enum class CellKind { kNative, kLowered, kRefused };

struct EngineCell {
  CellKind kind = CellKind::kNative;
  std::string words;     // lowered: how; refused: why; native: empty
  LoweredBlock lowered;  // unless refused

  bool operator==(const EngineCell&) const = default;
};

// The parent with this block at this position, in this format.
[[nodiscard]] EngineCell engine_cell(ExportTarget target, const ModelSpec& parent,
                                     LayerPosition position, const BlockSpec& block);

// The rewrites of one layer, e.g. "no attention as a matrix of zeros; FFN padded with zeros"; empty
// if it is written as it is.
[[nodiscard]] std::string rewrite_words(const BlockSpec& block, const LoweredBlock& lowered);

}  // namespace puzzle
