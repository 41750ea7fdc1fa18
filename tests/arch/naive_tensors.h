// The tensors that a model's file holds, listed by hand from docs/formats.md, without
// any of the code under test; and small models to list them for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/model_spec.h"

namespace puzzle::test {

// What a rewrite fills a tensor with.
enum class Fill { kRandom, kZero, kOne, kGateBias, kDiagonal };

struct NaiveTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  Fill fill = Fill::kRandom;

  [[nodiscard]] std::int64_t elements() const {
    std::int64_t product = 1;
    for (const std::int64_t size : shape) {
      product *= size;
    }
    return product;
  }
};

inline std::int64_t total_elements(const std::vector<NaiveTensor>& tensors) {
  std::int64_t sum = 0;
  for (const NaiveTensor& tensor : tensors) {
    sum += tensor.elements();
  }
  return sum;
}

// 64 wide, 4 heads of 16, KV heads 4, FFN 96.
inline ModelSpec small_spec(Architecture layers = {}) {
  ModelSpec spec;
  spec.name = "small";
  spec.hidden_size = 64;
  spec.num_heads = 4;
  spec.head_dim = 16;
  spec.vocab_size = 96;
  spec.context_length = 128;
  spec.layers = layers.empty() ? Architecture(3, parse_block("kv4/w96")) : std::move(layers);
  return spec;
}

inline Architecture parse_layers(const std::vector<std::string>& names) {
  Architecture layers;
  for (const std::string& name : names) {
    layers.push_back(parse_block(name));
  }
  return layers;
}

// Every pair of these; w32 and w64 look like rewrites in deci but are none.
inline Architecture all_small_blocks() {
  Architecture blocks;
  for (const char* attention : {"kv4", "kv2", "kv1", "linear", "none"}) {
    for (const char* ffn : {"w96", "w64", "w50", "w32", "linear", "none"}) {
      blocks.push_back(parse_block(std::string(attention) + "/" + ffn));
    }
  }
  return blocks;
}

inline std::vector<NaiveTensor> naive_hf_tensors(const ModelSpec& spec) {
  const std::int64_t d = spec.hidden_size;
  const std::int64_t q = spec.num_heads * spec.head_dim;
  std::vector<NaiveTensor> list = {{"model.embed_tokens.weight", {spec.vocab_size, d}},
                                   {"model.norm.weight", {d}}};
  if (!spec.tie_embeddings) {
    list.push_back({"lm_head.weight", {spec.vocab_size, d}});
  }
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const BlockSpec& block = spec.layers[i];
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    if (block.attention.kind != AttentionKind::kNone) {
      list.push_back({layer + "input_layernorm.weight", {d}});
    }
    if (block.attention.kind == AttentionKind::kLinear) {
      list.push_back({layer + "self_attn.linear_attn.weight", {d, d}});
    }
    if (block.attention.kind == AttentionKind::kGqa) {
      const std::int64_t kv = block.attention.kv_heads * spec.head_dim;
      list.push_back({layer + "self_attn.q_proj.weight", {q, d}});
      list.push_back({layer + "self_attn.k_proj.weight", {kv, d}});
      list.push_back({layer + "self_attn.v_proj.weight", {kv, d}});
      list.push_back({layer + "self_attn.o_proj.weight", {d, q}});
      if (spec.attention_bias) {
        list.push_back({layer + "self_attn.q_proj.bias", {q}});
        list.push_back({layer + "self_attn.k_proj.bias", {kv}});
        list.push_back({layer + "self_attn.v_proj.bias", {kv}});
      }
      if (spec.attention_output_bias) {
        list.push_back({layer + "self_attn.o_proj.bias", {d}});
      }
      if (spec.qk_norm) {
        list.push_back({layer + "self_attn.q_norm.weight", {spec.head_dim}});
        list.push_back({layer + "self_attn.k_norm.weight", {spec.head_dim}});
      }
    }
    if (block.ffn.kind != FfnKind::kNone) {
      list.push_back({layer + "post_attention_layernorm.weight", {d}});
    }
    if (block.ffn.kind == FfnKind::kLinear) {
      list.push_back({layer + "mlp.linear_mlp.weight", {d, d}});
    }
    if (block.ffn.kind == FfnKind::kSwiglu) {
      const std::int64_t f = block.ffn.width;
      list.push_back({layer + "mlp.gate_proj.weight", {f, d}});
      list.push_back({layer + "mlp.up_proj.weight", {f, d}});
      list.push_back({layer + "mlp.down_proj.weight", {d, f}});
      if (spec.mlp_bias) {
        list.push_back({layer + "mlp.gate_proj.bias", {f}});
        list.push_back({layer + "mlp.up_proj.bias", {f}});
        list.push_back({layer + "mlp.down_proj.bias", {d}});
      }
    }
  }
  return list;
}

// Adds what llama.cpp reads for one layer that is kept, as docs/formats.md rewrites it.
inline void add_naive_deci_layer(const ModelSpec& spec, std::size_t kept, const BlockSpec& block,
                                 std::vector<NaiveTensor>& list) {
  const std::int64_t d = spec.hidden_size;
  const std::int64_t q = spec.num_heads * spec.head_dim;
  const std::string layer = "blk." + std::to_string(kept) + ".";
  if (block.attention.kind == AttentionKind::kGqa) {
    const std::int64_t kv = block.attention.kv_heads * spec.head_dim;
    list.push_back({layer + "attn_norm.weight", {d}});
    list.push_back({layer + "attn_q.weight", {q, d}});
    list.push_back({layer + "attn_k.weight", {kv, d}});
    list.push_back({layer + "attn_v.weight", {kv, d}});
    list.push_back({layer + "attn_output.weight", {d, q}});
    if (spec.attention_bias) {
      list.push_back({layer + "attn_q.bias", {q}});
      list.push_back({layer + "attn_k.bias", {kv}});
      list.push_back({layer + "attn_v.bias", {kv}});
    }
    if (spec.attention_output_bias) {
      list.push_back({layer + "attn_output.bias", {d}});
    }
  } else if (block.attention.kind == AttentionKind::kLinear) {
    list.push_back({layer + "attn_norm.weight", {d}});
    list.push_back({layer + "attn_output.weight", {d, d}});
  } else if (kept == 0) {
    list.push_back({layer + "attn_norm.weight", {d}, Fill::kOne});
    list.push_back({layer + "attn_output.weight", {d, d}, Fill::kZero});
  }
  if (block.ffn.kind == FfnKind::kSwiglu) {
    const std::int64_t f = block.ffn.width;
    list.push_back({layer + "ffn_norm.weight", {d}});
    list.push_back({layer + "ffn_gate.weight", {f, d}});
    list.push_back({layer + "ffn_up.weight", {f, d}});
    list.push_back({layer + "ffn_down.weight", {d, f}});
    if (spec.mlp_bias) {
      list.push_back({layer + "ffn_gate.bias", {f}});
      list.push_back({layer + "ffn_up.bias", {f}});
      list.push_back({layer + "ffn_down.bias", {d}});
    }
  } else if (block.ffn.kind == FfnKind::kLinear) {
    list.push_back({layer + "ffn_norm.weight", {d}});
    list.push_back({layer + "ffn_gate.weight", {d, d}, Fill::kZero});
    list.push_back({layer + "ffn_gate.bias", {d}, Fill::kGateBias});
    list.push_back({layer + "ffn_up.weight", {d, d}});
    list.push_back({layer + "ffn_down.weight", {d, d}, Fill::kDiagonal});
  } else {
    list.push_back({layer + "ffn_norm.weight", {d}, Fill::kOne});
    list.push_back({layer + "ffn_gate.weight", {32, d}, Fill::kZero});
    list.push_back({layer + "ffn_up.weight", {32, d}, Fill::kZero});
    list.push_back({layer + "ffn_down.weight", {d, 32}, Fill::kZero});
  }
}

inline std::vector<NaiveTensor> naive_deci_tensors(const ModelSpec& spec) {
  std::vector<NaiveTensor> list = {{"token_embd.weight", {spec.vocab_size, spec.hidden_size}},
                                   {"output_norm.weight", {spec.hidden_size}}};
  if (!spec.tie_embeddings) {
    list.push_back({"output.weight", {spec.vocab_size, spec.hidden_size}});
  }
  std::size_t kept = 0;
  for (const BlockSpec& block : spec.layers) {
    if (block.name() != "none/none") {
      add_naive_deci_layer(spec, kept, block, list);
      ++kept;
    }
  }
  return list;
}

}  // namespace puzzle::test
