// What an export target makes of a block: the exact rewrites of docs/formats.md, as data. The
// search uses it for costs and rules, the exporters for what they write.
//
//   native        as it is
//   deci          llama.cpp. Layers without any sub-block are dropped; FFN none behind an attention
//                 becomes a zero FFN (llama.cpp would drop the attention's output); attention none
//                 in the first layer kept becomes a zero linear matrix (llama.cpp would not load
//                 it); FFN linear becomes a SwiGLU with a gate bias. So every layer kept has an
//                 FFN, and the last one cannot trip llama.cpp's assertion on n_ff = 0.
//   openelm       llama.cpp again, for tied models with norms of q and k (Qwen3), which deci lacks.
//                 Every layer has both halves: attention none becomes one head whose output matrix
//                 is zero, FFN none a zero FFN; layers without any sub-block are dropped. No linear
//                 sub-blocks: there is neither a bias nor an attention without softmax.
//   nemotron-nas  as it is, no layer dropped. Some engines read less: portability_notes().
//   padded        a plain model whose layers are all alike, for what reads the parent's own class:
//                 padded_model.h.
//   anymodel      as it is, in the parent's own class; no reader has linear sub-blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/dtype.h"

namespace puzzle {

enum class ExportTarget { kNative, kDeci, kOpenElm, kNemotronNas, kPadded, kAnyModel };

[[nodiscard]] const std::vector<ExportTarget>& all_export_targets();
// By export_target_name(). Throws Error(kUsage).
[[nodiscard]] ExportTarget parse_export_target(std::string_view name);
[[nodiscard]] std::string_view export_target_name(ExportTarget target);

// Whether it is an architecture of llama.cpp, of that name.
[[nodiscard]] bool is_gguf_target(ExportTarget target);

// How one block is written. `attention` and `ffn` are the shapes written. FFNs made by a rewrite
// hold no bias but the gate's of linear_ffn_as_swiglu, whatever the model's mlp_bias.
struct LoweredBlock {
  AttentionSpec attention;
  FfnSpec ffn;
  bool zero_attention = false;           // attention written as zeros of that shape, norm = 1
  bool one_zero_head = false;            // openelm: … and that with one query head only
  bool zero_ffn = false;                 // FFN "none" written as zeros of that width, norm = 1
  bool linear_ffn_as_swiglu = false;     // width D, in padded the common one: see LinearFfnForm
  bool linear_attention_as_ffn = false;  // padded: the matrix stands in an FFN, as a linear FFN's
  bool inserted_layer = false;           // … in a layer before this one, whose FFN is its own
  bool dropped = false;                  // the layer is left out of the file

  bool operator==(const LoweredBlock&) const = default;
};

// Channels of the FFN that stands for "none"; one block of Q8_0, Q4_0 and the like.
inline constexpr std::int64_t kZeroFfnWidth = 32;

// y = W x as down · (silu(gate x + gate bias) ⊙ up x): gate = 0, gate bias = b, up = W, down = c I.
// silu(b) = b to within 4e-13 for b >= 32, and b c = 1. b is 32; where the block
// type cannot hold 1/32 exactly, c is the nearest number below or above that it can, so that
// storing `down` adds no error.
struct LinearFfnForm {
  float gate_bias;
  float down_diagonal;
};
[[nodiscard]] LinearFfnForm linear_ffn_form(DType matrix);

// `layer` is the index in the file, after dropped layers are gone: pass the number of layers kept
// before this one. Throws Error(kUsage) where the target cannot hold the block (see refusal()).
[[nodiscard]] LoweredBlock lower_block(ExportTarget target, const ModelSpec& spec,
                                       std::int64_t layer, const BlockSpec& block);
// All layers of the model, dropped ones included. Throws as lower_block.
[[nodiscard]] std::vector<LoweredBlock> lower_model(ExportTarget target, const ModelSpec& spec);

// Why a target cannot hold the block, or nothing: KV heads that do not divide the heads, an FFN
// without width.
[[nodiscard]] std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec,
                                                 const BlockSpec& block);
// Why it cannot hold the model as a whole, or nothing: e.g. deci without any GQA layer, or with
// more than 512 layers, or with yarn settings that llama.cpp does not read; anymodel where no class
// of transformers has all the biases and norms.
[[nodiscard]] std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec);

// What some readers of the target cannot do with this model, one sentence each (docs/formats.md):
// FFN widths beyond ffn_mult, linear sub-blocks, a first layer without attention, …
[[nodiscard]] std::vector<std::string> portability_notes(ExportTarget target,
                                                         const ModelSpec& spec);

// deci and openelm need one GQA layer.
[[nodiscard]] bool needs_gqa_layer(ExportTarget target);

}  // namespace puzzle
