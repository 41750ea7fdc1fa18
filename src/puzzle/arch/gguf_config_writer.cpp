// Writes the keys of llama.cpp's architectures `deci` and `openelm` (docs/formats.md).
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

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
    case DType::kQ5_0:
      return 8;
    case DType::kQ4_K:
      return 14;
    case DType::kQ6_K:
      return 18;
    case DType::kBF16:
      return 32;
    default:
      fail(ErrorKind::kUsage,
           "GGUF export in {}: expected F32, F16, BF16, Q8_0, Q5_0, Q4_0, Q4_1, Q4_K or Q6_K",
           dtype_name(matrix));
  }
}

struct LayerLists {
  std::vector<std::int32_t> heads, kv_heads, widths;
};

LayerLists layer_lists(ExportTarget target, const ModelSpec& spec) {
  LayerLists lists;
  for (const LoweredBlock& block : lower_model(target, spec)) {
    if (block.dropped) {
      continue;
    }
    const bool has_heads = block.attention.kind != AttentionKind::kNone;
    const std::int64_t heads = block.one_zero_head ? 1 : spec.num_heads;
    lists.heads.push_back(has_heads ? static_cast<std::int32_t>(heads) : 0);
    lists.kv_heads.push_back(static_cast<std::int32_t>(block.attention.kv_heads));
    lists.widths.push_back(static_cast<std::int32_t>(block.ffn.width));
  }
  return lists;
}

std::uint32_t key_u32(std::int64_t value) {
  PUZZLE_CHECK(value >= 0 && value <= UINT32_MAX, "{} does not fit into 32 bits", value);
  return static_cast<std::uint32_t>(value);
}

// Keys below the architecture's name.
class KeyWriter {
 public:
  KeyWriter(std::string_view architecture, GgufWriter& writer)
      : architecture_(architecture), writer_(writer) {}

  void u32(std::string_view name, std::int64_t value) const {
    writer_.add_u32(key(name), key_u32(value));
  }
  void f32(std::string_view name, double value) const {
    writer_.add_f32(key(name), static_cast<float>(value));
  }
  void text(std::string_view name, std::string_view value) const {
    writer_.add_string(key(name), std::string(value));
  }
  void list(std::string_view name, std::vector<std::int32_t> values) const {
    writer_.add_value(key(name), std::move(values));
  }

 private:
  [[nodiscard]] std::string key(std::string_view name) const {
    return fmt::format("{}.{}", architecture_, name);
  }

  std::string_view architecture_;
  GgufWriter& writer_;
};

void write_rope_keys(const RopeSpec& rope, std::int64_t head_dim, const KeyWriter& keys) {
  keys.u32("rope.dimension_count", head_dim);
  keys.f32("rope.freq_base", rope.theta);
  if (rope.kind == RopeKind::kLinear || rope.kind == RopeKind::kYarn) {
    keys.text("rope.scaling.type", rope_kind_name(rope.kind));
    keys.f32("rope.scaling.factor", rope.factor);
  }
  if (rope.kind == RopeKind::kYarn) {
    keys.u32("rope.scaling.original_context_length", rope.original_context);
    if (rope.attention_factor != 0.0) {
      // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this number.
      const double own = 0.1 * std::log(rope.factor) + 1.0;
      keys.f32("rope.scaling.attn_factor", rope.attention_factor / own);
    }
  }
}

void add_frequency_divisors(const RopeSpec& rope, std::int64_t head_dim, GgufWriter& writer) {
  TensorToWrite tensor;
  tensor.name = "rope_freqs.weight";
  tensor.shape = {head_dim / 2};
  tensor.produce = [divisors = llama3_frequency_divisors(rope, head_dim)](const ByteSink& sink) {
    sink(std::as_bytes(std::span(divisors)));
  };
  writer.add_tensor(std::move(tensor));
}

}  // namespace

void write_gguf_config(ExportTarget target, const ModelSpec& spec, DType matrix,
                       GgufWriter& writer) {
  PUZZLE_CHECK(is_gguf_target(target), "{} is no GGUF architecture", export_target_name(target));
  const std::string_view architecture = export_target_name(target);
  const std::string place = fmt::format("{} export", architecture);
  check_model_spec(spec, place);
  if (const auto reason = refusal(target, spec)) {
    fail(ErrorKind::kUsage, "{}: {}", place, *reason);
  }
  if (spec.context_length > UINT32_MAX) {
    fail(ErrorKind::kUsage, "{}: a context of {} tokens does not fit into 32 bits", place,
         spec.context_length);
  }
  LayerLists lists = layer_lists(target, spec);
  writer.add_string("general.architecture", std::string(architecture));
  writer.add_string("general.name", spec.name);
  writer.add_u32("general.file_type", gguf_file_type(matrix));
  if (is_quantized(matrix)) {
    writer.add_u32("general.quantization_version", 2);
  }
  const KeyWriter keys(architecture, writer);
  keys.u32("block_count", std::ssize(lists.heads));
  keys.u32("context_length", spec.context_length);
  keys.u32("embedding_length", spec.hidden_size);
  keys.u32("vocab_size", spec.vocab_size);
  keys.list("attention.head_count", std::move(lists.heads));
  keys.list("attention.head_count_kv", std::move(lists.kv_heads));
  keys.list("feed_forward_length", std::move(lists.widths));
  keys.u32("attention.key_length", spec.head_dim);
  keys.u32("attention.value_length", spec.head_dim);
  keys.f32("attention.layer_norm_rms_epsilon", spec.rms_norm_eps);
  write_rope_keys(spec.rope, spec.head_dim, keys);
  if (spec.rope.kind == RopeKind::kLlama3) {
    add_frequency_divisors(spec.rope, spec.head_dim, writer);
  }
}

}  // namespace puzzle
