// Writes the keys of llama.cpp's architecture `deci` (formats.md 5.1).
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "puzzle/arch/gguf_config.h"
#include "puzzle/arch/lowering.h"
#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// llama.cpp's numbers for "mostly this type"; loaders print them and decide nothing by them.
std::uint32_t gguf_file_type(DType matrix) {
  switch (matrix) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kBF16:
      return 32;
    default:
      fail(ErrorKind::kUsage, "GGUF export in {}: expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1",
           dtype_name(matrix));
  }
}

struct LayerLists {
  std::vector<std::int32_t> heads, kv_heads, widths;
};

LayerLists layer_lists(const ModelSpec& spec) {
  LayerLists lists;
  for (const LoweredBlock& block : lower_model(ExportTarget::kDeci, spec)) {
    if (block.dropped) {
      continue;
    }
    const bool has_heads = block.attention.kind != AttentionKind::kNone;
    lists.heads.push_back(has_heads ? static_cast<std::int32_t>(spec.num_heads) : 0);
    lists.kv_heads.push_back(static_cast<std::int32_t>(block.attention.kv_heads));
    lists.widths.push_back(static_cast<std::int32_t>(block.ffn.width));
  }
  return lists;
}

std::uint32_t deci_u32(std::int64_t value) {
  PUZZLE_CHECK(value >= 0 && value <= UINT32_MAX, "{} does not fit into 32 bits", value);
  return static_cast<std::uint32_t>(value);
}

void write_deci_rope(const RopeSpec& rope, std::int64_t head_dim, GgufWriter& writer) {
  writer.add_u32("deci.rope.dimension_count", deci_u32(head_dim));
  writer.add_f32("deci.rope.freq_base", static_cast<float>(rope.theta));
  if (rope.kind == RopeKind::kLinear || rope.kind == RopeKind::kYarn) {
    writer.add_string("deci.rope.scaling.type", std::string(rope_kind_name(rope.kind)));
    writer.add_f32("deci.rope.scaling.factor", static_cast<float>(rope.factor));
  }
  if (rope.kind == RopeKind::kYarn) {
    writer.add_u32("deci.rope.scaling.original_context_length", deci_u32(rope.original_context));
    if (rope.attention_factor != 0.0) {
      // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this number.
      const double own = 0.1 * std::log(rope.factor) + 1.0;
      writer.add_f32("deci.rope.scaling.attn_factor",
                     static_cast<float>(rope.attention_factor / own));
    }
  }
  if (rope.kind == RopeKind::kLlama3) {
    TensorToWrite tensor;
    tensor.name = "rope_freqs.weight";
    tensor.shape = {head_dim / 2};
    tensor.produce = [divisors = llama3_frequency_divisors(rope, head_dim)](const ByteSink& sink) {
      sink(std::as_bytes(std::span(divisors)));
    };
    writer.add_tensor(std::move(tensor));
  }
}

}  // namespace

void write_deci_config(const ModelSpec& spec, DType matrix, GgufWriter& writer) {
  check_model_spec(spec, "deci export");
  if (const auto reason = refusal(ExportTarget::kDeci, spec)) {
    fail(ErrorKind::kUsage, "deci export: {}", *reason);
  }
  if (spec.context_length > UINT32_MAX) {
    fail(ErrorKind::kUsage, "deci export: a context of {} tokens does not fit into 32 bits",
         spec.context_length);
  }
  LayerLists lists = layer_lists(spec);
  writer.add_string("general.architecture", "deci");
  writer.add_string("general.name", spec.name);
  writer.add_u32("general.file_type", gguf_file_type(matrix));
  if (is_quantized(matrix)) {
    writer.add_u32("general.quantization_version", 2);
  }
  writer.add_u32("deci.block_count", deci_u32(static_cast<std::int64_t>(lists.heads.size())));
  writer.add_u32("deci.context_length", deci_u32(spec.context_length));
  writer.add_u32("deci.embedding_length", deci_u32(spec.hidden_size));
  writer.add_u32("deci.vocab_size", deci_u32(spec.vocab_size));
  writer.add_value("deci.attention.head_count", std::move(lists.heads));
  writer.add_value("deci.attention.head_count_kv", std::move(lists.kv_heads));
  writer.add_value("deci.feed_forward_length", std::move(lists.widths));
  writer.add_u32("deci.attention.key_length", deci_u32(spec.head_dim));
  writer.add_u32("deci.attention.value_length", deci_u32(spec.head_dim));
  writer.add_f32("deci.attention.layer_norm_rms_epsilon", static_cast<float>(spec.rms_norm_eps));
  write_deci_rope(spec.rope, spec.head_dim, writer);
}

}  // namespace puzzle
