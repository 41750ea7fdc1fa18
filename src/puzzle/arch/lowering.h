// What an export target makes of a block: the exact rewrites of formats.md 5.4 and 7, as data. The
// search uses it for costs and rules, the exporters for what they write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "puzzle/arch/model_spec.h"

namespace puzzle {

enum class ExportTarget { kNative, kDeci, kNemotronNas };

[[nodiscard]] ExportTarget parse_export_target(std::string_view name);  // native | deci | nemotron-nas
[[nodiscard]] std::string_view export_target_name(ExportTarget target);

// How one block is written.
struct LoweredBlock {
  AttentionSpec attention;           // shape written
  FfnSpec ffn;                       // shape written
  bool zero_attention = false;       // attention "none" written as a zero linear matrix (deci, layer 0)
  bool zero_ffn = false;             // FFN "none" behind an attention, written as zero rows (deci)
  bool linear_ffn_as_swiglu = false; // gate = 0, gate bias = 32, up = W, down = I/32 (formats.md 7.2)
  bool dropped = false;              // the layer is left out of the file

  bool operator==(const LoweredBlock&) const = default;
};

// `layer` is the index in the file, after dropped layers are gone: pass the number of layers kept before
// this one. Throws Error(kUsage) where the target cannot hold the block (see refusal()).
[[nodiscard]] LoweredBlock lower_block(ExportTarget target, const ModelSpec& spec, std::int64_t layer,
                                       const BlockSpec& block);

// Why a target cannot hold the block, or nothing: e.g. an FFN width that is no multiple of 256 in
// nemotron-nas.
[[nodiscard]] std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec,
                                                 const BlockSpec& block);
// Why it cannot hold the model as a whole, or nothing: e.g. deci without any GQA layer.
[[nodiscard]] std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec);

// deci needs one GQA layer.
[[nodiscard]] bool needs_gqa_layer(ExportTarget target);

}  // namespace puzzle
