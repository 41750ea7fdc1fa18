// What may stand in one transformer layer, as plain data.
//
// A layer is an attention sub-block and an FFN sub-block, each with its own RMSNorm and residual
// add:
//   attention  gqa(k): grouped-query attention with k KV heads;  linear: x -> W x;  none: left out
//   ffn        swiglu(w): gate/up/down of width w;               linear: x -> W x;  none: left out
// "linear" keeps norm and residual; "none" has neither norm nor weights (the Puzzle paper).
// Names, used in files, tables and on the command line: kv3 | linear | none, w1536 | linear | none,
// and for a whole block attention/ffn, e.g. "kv3/w768".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

enum class AttentionKind { kGqa, kLinear, kNone };
enum class FfnKind { kSwiglu, kLinear, kNone };

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kNone;
  std::int64_t kv_heads = 0;  // > 0 for kGqa, else 0

  [[nodiscard]] static AttentionSpec gqa(std::int64_t kv_heads) {
    return {AttentionKind::kGqa, kv_heads};
  }
  [[nodiscard]] static AttentionSpec linear() { return {AttentionKind::kLinear, 0}; }
  [[nodiscard]] static AttentionSpec none() { return {AttentionKind::kNone, 0}; }
  [[nodiscard]] std::string name() const;
  auto operator<=>(const AttentionSpec&) const = default;
};

struct FfnSpec {
  FfnKind kind = FfnKind::kNone;
  std::int64_t width = 0;  // intermediate channels, > 0 for kSwiglu, else 0

  [[nodiscard]] static FfnSpec swiglu(std::int64_t width) { return {FfnKind::kSwiglu, width}; }
  [[nodiscard]] static FfnSpec linear() { return {FfnKind::kLinear, 0}; }
  [[nodiscard]] static FfnSpec none() { return {FfnKind::kNone, 0}; }
  [[nodiscard]] std::string name() const;
  auto operator<=>(const FfnSpec&) const = default;
};

struct BlockSpec {
  AttentionSpec attention;
  FfnSpec ffn;

  [[nodiscard]] std::string name() const;
  auto operator<=>(const BlockSpec&) const = default;
};

// One block per layer.
using Architecture = std::vector<BlockSpec>;

// Inverse of name(). Throw Error(kFormat) naming the text and the forms allowed.
[[nodiscard]] AttentionSpec parse_attention(std::string_view name);
[[nodiscard]] FfnSpec parse_ffn(std::string_view name);
[[nodiscard]] BlockSpec parse_block(std::string_view name);

// Of every layer, and back; throws as parse_block.
[[nodiscard]] std::vector<std::string> block_names(const Architecture& layers);
[[nodiscard]] Architecture parse_blocks(const std::vector<std::string>& names);

// In one line for people, equal neighbours together: "0-2 kv3/w1536, 3 kv1/w768".
[[nodiscard]] std::string architecture_text(const Architecture& layers);

}  // namespace puzzle
