#include "puzzle/arch/lowering.h"

#include <algorithm>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::int64_t kDeciMaxLayers = 512;     // llama.cpp's fixed per-layer arrays
constexpr std::int64_t kNasWidthMultiple = 256;  // ffn_mult rounds up to it

bool is_empty_block(const BlockSpec& block) {
  return block.attention.kind == AttentionKind::kNone && block.ffn.kind == FfnKind::kNone;
}

template <class Predicate>
bool any_block(const ModelSpec& spec, Predicate&& predicate) {
  return std::any_of(spec.layers.begin(), spec.layers.end(), predicate);
}

LoweredBlock lower_for_deci(const ModelSpec& spec, std::int64_t layer, const BlockSpec& block) {
  LoweredBlock lowered{block.attention, block.ffn};
  if (is_empty_block(block)) {
    lowered.dropped = true;
    return lowered;
  }
  if (layer == 0 && block.attention.kind == AttentionKind::kNone) {
    lowered.attention = AttentionSpec::linear();
    lowered.zero_attention = true;
  }
  if (block.ffn.kind == FfnKind::kNone) {
    lowered.ffn = FfnSpec::swiglu(kZeroFfnWidth);
    lowered.zero_ffn = true;
  } else if (block.ffn.kind == FfnKind::kLinear) {
    lowered.ffn = FfnSpec::swiglu(spec.hidden_size);
    lowered.linear_ffn_as_swiglu = true;
  }
  return lowered;
}

std::optional<std::string> deci_rope_refusal(const RopeSpec& rope) {
  if (rope.kind != RopeKind::kYarn) {
    return std::nullopt;
  }
  if (!rope.truncate) {
    return "yarn with truncate = false: llama.cpp always rounds the ends of the ramp";
  }
  const RopeSpec defaults;
  if (rope.beta_fast != defaults.beta_fast || rope.beta_slow != defaults.beta_slow) {
    return fmt::format("yarn with beta_fast {} and beta_slow {}: llama.cpp uses {} and {}",
                       rope.beta_fast, rope.beta_slow, defaults.beta_fast, defaults.beta_slow);
  }
  return std::nullopt;
}

std::optional<std::string> deci_refusal(const ModelSpec& spec) {
  if (spec.qk_norm) {
    return "q and k have norms (Qwen3): llama.cpp's deci would not load them";
  }
  if (!any_block(spec, [](const BlockSpec& block) {
        return block.attention.kind == AttentionKind::kGqa;
      })) {
    return "no layer has GQA attention: llama.cpp cannot create a context for it";
  }
  const auto kept = std::count_if(spec.layers.begin(), spec.layers.end(),
                                  [](const BlockSpec& block) { return !is_empty_block(block); });
  if (kept > kDeciMaxLayers) {
    return fmt::format("{} layers: llama.cpp holds at most {}", kept, kDeciMaxLayers);
  }
  return deci_rope_refusal(spec.rope);
}

std::vector<std::string> nemotron_nas_notes(const ModelSpec& spec) {
  std::vector<std::string> notes;
  if (any_block(spec, [](const BlockSpec& b) { return b.ffn.width % kNasWidthMultiple != 0; })) {
    notes.emplace_back(
        "FFN widths that are no multiple of 256 are read by the remote code shipped and by current "
        "vLLM only");
  }
  if (any_block(spec,
                [](const BlockSpec& b) { return b.attention.kind == AttentionKind::kLinear; })) {
    notes.emplace_back(
        "linear attention is read by the remote code shipped and by TensorRT-LLM (PyTorch) only");
  }
  if (any_block(spec, [](const BlockSpec& b) { return b.ffn.kind == FfnKind::kLinear; })) {
    notes.emplace_back(
        "linear FFNs are read by the remote code shipped and by TensorRT-LLM (PyTorch) only");
  }
  if (!spec.layers.empty() && spec.layers.front().attention.kind == AttentionKind::kNone &&
      spec.layers.front().ffn.kind != FfnKind::kNone) {
    notes.emplace_back("vLLM does not load a first layer without attention");
  }
  if (spec.num_heads * spec.head_dim != spec.hidden_size) {
    notes.emplace_back(
        "MLX-LM and llama.cpp's converter ignore head_dim and take hidden size over heads");
  }
  if (spec.qk_norm) {
    notes.emplace_back(
        "norms of q and k (Qwen3) are read by the remote code shipped and by this program only");
  }
  if (spec.attention_bias != spec.attention_output_bias) {
    notes.emplace_back(
        "attention_bias means a bias on q, k, v and o elsewhere; only the remote code shipped and "
        "this program read which of them exist");
  }
  if (!spec.rope.frequency_divisors.empty()) {
    notes.emplace_back(
        "rotary frequencies come from rope_freqs.weight; other readers use the llama3 settings "
        "that match it, if there are any");
  }
  return notes;
}

}  // namespace

ExportTarget parse_export_target(std::string_view name) {
  for (const ExportTarget target :
       {ExportTarget::kNative, ExportTarget::kDeci, ExportTarget::kNemotronNas}) {
    if (name == export_target_name(target)) {
      return target;
    }
  }
  fail(ErrorKind::kUsage, "export target '{}': expected native, deci or nemotron-nas", name);
}

std::string_view export_target_name(ExportTarget target) {
  switch (target) {
    case ExportTarget::kNative:
      return "native";
    case ExportTarget::kDeci:
      return "deci";
    case ExportTarget::kNemotronNas:
      return "nemotron-nas";
  }
  return "native";
}

LinearFfnForm linear_ffn_form(DType matrix) {
  // A Q8_0 block with one non-zero element x has scale |x| / 127 in F16, a Q4_1 block x / 15; the
  // scale is a power of two, hence exact, for these c. Q4_0 divides by 8 and holds 1/32 itself.
  if (matrix == DType::kQ8_0) {
    return {4096.0F / 127.0F, 127.0F / 4096.0F};
  }
  if (matrix == DType::kQ4_1) {
    return {512.0F / 15.0F, 15.0F / 512.0F};
  }
  return {32.0F, 1.0F / 32.0F};
}

LoweredBlock lower_block(ExportTarget target, const ModelSpec& spec, std::int64_t layer,
                         const BlockSpec& block) {
  if (const auto reason = refusal(target, spec, block)) {
    fail(ErrorKind::kUsage, "{}: block {}: {}", export_target_name(target), block.name(), *reason);
  }
  return target == ExportTarget::kDeci ? lower_for_deci(spec, layer, block)
                                       : LoweredBlock{block.attention, block.ffn};
}

std::vector<LoweredBlock> lower_model(ExportTarget target, const ModelSpec& spec) {
  std::vector<LoweredBlock> lowered;
  lowered.reserve(spec.layers.size());
  std::int64_t kept = 0;
  for (const BlockSpec& block : spec.layers) {
    lowered.push_back(lower_block(target, spec, kept, block));
    kept += lowered.back().dropped ? 0 : 1;
  }
  return lowered;
}

std::optional<std::string> refusal(ExportTarget, const ModelSpec& spec, const BlockSpec& block) {
  const std::int64_t kv_heads = block.attention.kv_heads;
  if (block.attention.kind == AttentionKind::kGqa &&
      (kv_heads <= 0 || spec.num_heads % kv_heads != 0)) {
    return fmt::format("{} KV heads do not divide the {} heads", kv_heads, spec.num_heads);
  }
  if (block.ffn.kind == FfnKind::kSwiglu &&
      (block.ffn.width <= 0 || block.ffn.width > kMaxFfnWidth)) {
    return fmt::format("FFN width {} is not within 1 … {}", block.ffn.width, kMaxFfnWidth);
  }
  return std::nullopt;
}

std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec) {
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    if (const auto reason = refusal(target, spec, spec.layers[i])) {
      return fmt::format("layer {}: {}", i, *reason);
    }
  }
  return target == ExportTarget::kDeci ? deci_refusal(spec) : std::nullopt;
}

std::vector<std::string> portability_notes(ExportTarget target, const ModelSpec& spec) {
  return target == ExportTarget::kNemotronNas ? nemotron_nas_notes(spec)
                                              : std::vector<std::string>();
}

bool needs_gqa_layer(ExportTarget target) { return target == ExportTarget::kDeci; }

}  // namespace puzzle
