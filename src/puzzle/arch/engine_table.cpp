#include "puzzle/arch/engine_table.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr std::int64_t kParentKvHeads = 4;
constexpr std::int64_t kFewerKvHeads = 2;
constexpr std::int64_t kParentWidth = 512;
constexpr std::int64_t kNarrowWidth = 96;

ModelSpec engine_parent() {
  ModelSpec spec;
  spec.hidden_size = 64;
  spec.num_heads = 4;
  spec.head_dim = 32;
  spec.vocab_size = 512;
  spec.context_length = 128;
  spec.bos_token = 1;
  spec.eos_tokens = {2};
  spec.layers.assign(4, {AttentionSpec::gqa(kParentKvHeads), FfnSpec::swiglu(kParentWidth)});
  return spec;
}

template <class Change>
EngineModel changed(std::string_view name, std::string_view words, Change&& change) {
  EngineModel model{name, words, engine_parent()};
  change(model.spec);
  model.spec.name = name;
  return model;
}

std::vector<EngineModel> make_engine_models() {
  return {
      changed("Llama", "also Mistral, SmolLM2, TinyLlama, Yi; tied or not", [](ModelSpec&) {}),
      changed("Qwen2", "biases on q, k and v", [](ModelSpec& spec) { spec.attention_bias = true; }),
      changed("Qwen3, tied", "norms of q and k, head tied to the embedding",
              [](ModelSpec& spec) { spec.qk_norm = spec.tie_embeddings = true; }),
      changed("Qwen3, untied", "norms of q and k, a head of its own",
              [](ModelSpec& spec) { spec.qk_norm = true; }),
      changed("Llama, all biases", "on q, k, v and o, and in the FFN",
              [](ModelSpec& spec) {
                spec.attention_bias = spec.attention_output_bias = spec.mlp_bias = true;
              }),
      changed("llama3 scaling", "of the rotary frequencies: Llama 3.1 and later",
              [](ModelSpec& spec) {
                spec.rope.kind = RopeKind::kLlama3;
                spec.rope.factor = 4.0;
                spec.rope.original_context = 32;
              }),
      changed("yarn scaling", "with transformers' default betas",
              [](ModelSpec& spec) {
                spec.rope.kind = RopeKind::kYarn;
                spec.rope.factor = 4.0;
                spec.rope.original_context = 32;
              }),
      changed("yarn, other betas", "or `truncate: false`",
              [](ModelSpec& spec) {
                spec.rope.kind = RopeKind::kYarn;
                spec.rope.factor = 4.0;
                spec.rope.original_context = 32;
                spec.rope.beta_fast = 16.0;
              }),
  };
}

}  // namespace

const std::vector<EngineModel>& engine_models() {
  static const std::vector<EngineModel> kModels = make_engine_models();
  return kModels;
}

const EngineModel& find_engine_model(std::string_view name) {
  for (const EngineModel& model : engine_models()) {
    if (model.name == name) {
      return model;
    }
  }
  fail(ErrorKind::kInternal, "no model '{}' among those of docs/engines.md", name);
}

std::vector<BlockSpec> engine_blocks() {
  const std::array attentions = {AttentionSpec::gqa(kParentKvHeads),
                                 AttentionSpec::gqa(kFewerKvHeads), AttentionSpec::linear(),
                                 AttentionSpec::none()};
  const std::array ffns = {FfnSpec::swiglu(kParentWidth), FfnSpec::swiglu(kNarrowWidth),
                           FfnSpec::linear(), FfnSpec::none()};
  std::vector<BlockSpec> blocks;
  for (const AttentionSpec& attention : attentions) {
    for (const FfnSpec& ffn : ffns) {
      blocks.push_back({attention, ffn});
    }
  }
  return blocks;
}

std::string engine_block_words(const AttentionSpec& attention) {
  switch (attention.kind) {
    case AttentionKind::kGqa:
      return attention.kv_heads == kParentKvHeads ? "the parent's" : "fewer KV heads";
    case AttentionKind::kLinear:
      return "linear";
    case AttentionKind::kNone:
      break;
  }
  return "none";
}

std::string engine_block_words(const FfnSpec& ffn) {
  switch (ffn.kind) {
    case FfnKind::kSwiglu:
      return ffn.width == kParentWidth ? "the parent's" : "narrower";
    case FfnKind::kLinear:
      return "linear";
    case FfnKind::kNone:
      break;
  }
  return "none";
}

std::string_view layer_position_name(LayerPosition position) {
  switch (position) {
    case LayerPosition::kFirst:
      return "first";
    case LayerPosition::kMiddle:
      return "middle";
    case LayerPosition::kLast:
      break;
  }
  return "last";
}

std::size_t layer_at(LayerPosition position) {
  switch (position) {
    case LayerPosition::kFirst:
      return 0;
    case LayerPosition::kMiddle:
      return 2;
    case LayerPosition::kLast:
      break;
  }
  return 3;
}

std::string rewrite_words(const BlockSpec& block, const LoweredBlock& lowered) {
  if (lowered.dropped) {
    return "left out of the file";
  }
  std::vector<std::string> parts;
  const auto add_if = [&parts](bool is_done, const char* words) {
    if (is_done) {
      parts.emplace_back(words);
    }
  };
  add_if(lowered.linear_attention_as_ffn && lowered.inserted_layer,
         "linear attention as the FFN of a layer inserted before");
  add_if(lowered.linear_attention_as_ffn && !lowered.inserted_layer,
         "linear attention as the layer's FFN");
  add_if(lowered.zero_attention && !lowered.linear_attention_as_ffn,
         lowered.attention.kind == AttentionKind::kLinear ? "no attention as a matrix of zeros"
                                                          : "no attention as one of zeros");
  add_if(block.attention.kind == AttentionKind::kGqa &&
             lowered.attention.kv_heads != block.attention.kv_heads,
         "KV heads repeated");
  add_if(lowered.zero_ffn, "no FFN as one of zeros");
  add_if(lowered.linear_ffn_as_swiglu, "linear FFN as a gated one whose gate is constant");
  add_if(block.ffn.kind == FfnKind::kSwiglu && lowered.ffn.width != block.ffn.width,
         "FFN padded with zeros");
  return join(parts, "; ");
}

EngineCell engine_cell(ExportTarget target, const ModelSpec& parent, LayerPosition position,
                       const BlockSpec& block) {
  ModelSpec model = parent;
  const std::size_t layer = layer_at(position);
  model.layers.at(layer) = block;
  if (const auto reason = refusal(target, model)) {
    // "layer 2: why", which the cell's place says already.
    const std::string opening = fmt::format("layer {}: ", layer);
    return {CellKind::kRefused,
            reason->starts_with(opening) ? reason->substr(opening.size()) : *reason,
            {}};
  }
  const LoweredBlock lowered = lower_model(target, model).at(layer);
  if (lowered == LoweredBlock{block.attention, block.ffn}) {
    return {CellKind::kNative, "", lowered};
  }
  const std::string words = rewrite_words(block, lowered);
  PUZZLE_CHECK(!words.empty(), "{}: the rewrite of {} has no words", export_target_name(target),
               block.name());
  return {CellKind::kLowered, words, lowered};
}

}  // namespace puzzle
