#include "puzzle/arch/lowering.h"

#include <algorithm>

#include <fmt/format.h>

#include "puzzle/arch/hf_family.h"
#include "puzzle/arch/padded_model.h"
#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::int64_t kGgufMaxLayers = 512;     // llama.cpp's fixed per-layer arrays
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

LoweredBlock lower_for_openelm(const BlockSpec& block) {
  LoweredBlock lowered{block.attention, block.ffn};
  if (is_empty_block(block)) {
    lowered.dropped = true;
    return lowered;
  }
  if (block.attention.kind == AttentionKind::kNone) {
    lowered.attention = AttentionSpec::gqa(1);
    lowered.zero_attention = lowered.one_zero_head = true;
  }
  if (block.ffn.kind == FfnKind::kNone) {
    lowered.ffn = FfnSpec::swiglu(kZeroFfnWidth);
    lowered.zero_ffn = true;
  }
  return lowered;
}

std::optional<std::string> llama_cpp_rope_refusal(const RopeSpec& rope) {
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

// What both of llama.cpp's architectures need.
std::optional<std::string> llama_cpp_refusal(const ModelSpec& spec) {
  if (!any_block(spec, [](const BlockSpec& block) {
        return block.attention.kind == AttentionKind::kGqa;
      })) {
    return "no layer has GQA attention: llama.cpp cannot create a context for it";
  }
  const auto kept = std::count_if(spec.layers.begin(), spec.layers.end(),
                                  [](const BlockSpec& block) { return !is_empty_block(block); });
  if (kept > kGgufMaxLayers) {
    return fmt::format("{} layers: llama.cpp holds at most {}", kept, kGgufMaxLayers);
  }
  return llama_cpp_rope_refusal(spec.rope);
}

std::optional<std::string> openelm_refusal(const ModelSpec& spec) {
  if (!spec.qk_norm) {
    return "q and k have no norms, which openelm has in every layer; deci holds such models";
  }
  if (!spec.tie_embeddings) {
    return "the head is a matrix of its own, and openelm's is the embedding";
  }
  if (spec.attention_bias || spec.attention_output_bias || spec.mlp_bias) {
    return "it has biases, which openelm would not load";
  }
  if (spec.rope.kind == RopeKind::kLlama3) {
    return "its rotary frequencies are scaled as llama3's are, which openelm does not read";
  }
  return llama_cpp_refusal(spec);
}

std::optional<std::string> deci_refusal(const ModelSpec& spec) {
  if (spec.qk_norm) {
    return "q and k have norms (Qwen3): llama.cpp's deci would not load them";
  }
  return llama_cpp_refusal(spec);
}

bool is_linear(const BlockSpec& block) {
  return block.attention.kind == AttentionKind::kLinear || block.ffn.kind == FfnKind::kLinear;
}

std::optional<std::string> linear_refusal(ExportTarget target, const ModelSpec& spec,
                                          const BlockSpec& block) {
  if (target == ExportTarget::kOpenElm && is_linear(block)) {
    return "a linear sub-block, which openelm has no form for";
  }
  if (target == ExportTarget::kAnyModel && is_linear(block)) {
    return "a linear sub-block, which no reader of block_configs has";
  }
  if (target == ExportTarget::kPadded && spec.qk_norm && is_linear(block)) {
    return "a linear sub-block needs a bias in the FFN, and with norms of q and k (Qwen3) there is "
           "none";
  }
  return std::nullopt;
}

// Of targets that transformers' own classes read.
std::optional<std::string> plain_refusal(const ModelSpec& spec) {
  if (spec.rope.kind == RopeKind::kLlama3 && spec.rope.original_context == 0) {
    return "rotary frequencies that no llama3 settings give, as the file's rope_freqs.weight holds "
           "them";
  }
  if (find_plain_family(spec, "") == nullptr) {
    return "no class of transformers has these biases and norms of q and k together";
  }
  return std::nullopt;
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

const std::vector<ExportTarget>& all_export_targets() {
  static const std::vector<ExportTarget> kTargets = {
      ExportTarget::kNative,      ExportTarget::kDeci,   ExportTarget::kOpenElm,
      ExportTarget::kNemotronNas, ExportTarget::kPadded, ExportTarget::kAnyModel};
  return kTargets;
}

ExportTarget parse_export_target(std::string_view name) {
  std::vector<std::string> known;
  for (const ExportTarget target : all_export_targets()) {
    if (name == export_target_name(target)) {
      return target;
    }
    known.emplace_back(export_target_name(target));
  }
  fail(ErrorKind::kUsage, "export target '{}': expected one of {}", name, join(known, ", "));
}

std::string_view export_target_name(ExportTarget target) {
  switch (target) {
    case ExportTarget::kNative:
      return "native";
    case ExportTarget::kDeci:
      return "deci";
    case ExportTarget::kOpenElm:
      return "openelm";
    case ExportTarget::kNemotronNas:
      return "nemotron-nas";
    case ExportTarget::kPadded:
      return "padded";
    case ExportTarget::kAnyModel:
      return "anymodel";
  }
  return "native";
}

bool is_gguf_target(ExportTarget target) {
  return target == ExportTarget::kDeci || target == ExportTarget::kOpenElm;
}

LinearFfnForm linear_ffn_form(DType matrix) {
  // A Q8_0 block with one non-zero element x has scale |x| / 127 in F16, a Q4_1 block x / 15; the
  // scale is a power of two, hence exact, for these c; a Q4_K group x / 15 / 63. Q4_0, Q5_0 and
  // Q6_K divide by powers of two and hold 1/32 itself.
  if (matrix == DType::kQ8_0) {
    return {4096.0F / 127.0F, 127.0F / 4096.0F};
  }
  if (matrix == DType::kQ4_1) {
    return {512.0F / 15.0F, 15.0F / 512.0F};
  }
  if (matrix == DType::kQ4_K) {
    return {32768.0F / 945.0F, 945.0F / 32768.0F};
  }
  return {32.0F, 1.0F / 32.0F};
}

LoweredBlock lower_block(ExportTarget target, const ModelSpec& spec, std::int64_t layer,
                         const BlockSpec& block) {
  if (const auto reason = refusal(target, spec, block)) {
    fail(ErrorKind::kUsage, "{}: block {}: {}", export_target_name(target), block.name(), *reason);
  }
  switch (target) {
    case ExportTarget::kDeci:
      return lower_for_deci(spec, layer, block);
    case ExportTarget::kOpenElm:
      return lower_for_openelm(block);
    case ExportTarget::kPadded:
      return lower_for_padded(spec, block);
    default:
      return {block.attention, block.ffn};
  }
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

std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec,
                                   const BlockSpec& block) {
  const std::int64_t kv_heads = block.attention.kv_heads;
  if (block.attention.kind == AttentionKind::kGqa &&
      (kv_heads <= 0 || spec.num_heads % kv_heads != 0)) {
    return fmt::format("{} KV heads do not divide the {} heads", kv_heads, spec.num_heads);
  }
  if (block.ffn.kind == FfnKind::kSwiglu &&
      (block.ffn.width <= 0 || block.ffn.width > kMaxFfnWidth)) {
    return fmt::format("FFN width {} is not within 1 … {}", block.ffn.width, kMaxFfnWidth);
  }
  return linear_refusal(target, spec, block);
}

std::optional<std::string> refusal(ExportTarget target, const ModelSpec& spec) {
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    if (const auto reason = refusal(target, spec, spec.layers[i])) {
      return fmt::format("layer {}: {}", i, *reason);
    }
  }
  switch (target) {
    case ExportTarget::kDeci:
      return deci_refusal(spec);
    case ExportTarget::kOpenElm:
      return openelm_refusal(spec);
    case ExportTarget::kPadded:
      return std::all_of(spec.layers.begin(), spec.layers.end(), is_empty_block)
                 ? "no layer has a sub-block"
                 : plain_refusal(padded_spec(spec));
    case ExportTarget::kAnyModel:
      return plain_refusal(spec);
    default:
      return std::nullopt;
  }
}

std::vector<std::string> portability_notes(ExportTarget target, const ModelSpec& spec) {
  return target == ExportTarget::kNemotronNas ? nemotron_nas_notes(spec)
                                              : std::vector<std::string>();
}

bool needs_gqa_layer(ExportTarget target) { return is_gguf_target(target); }

}  // namespace puzzle
