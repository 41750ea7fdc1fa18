#include "puzzle/arch/inspect.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

using InspectJson = nlohmann::json;

enum Part : std::size_t { kEmbedding, kAttention, kFfn, kNorms, kHead, kOther, kNumParts };
constexpr std::array<const char*, kNumParts> kPartNames = {"embedding", "attention", "ffn",
                                                           "norms",     "head",      "other"};

struct PartTable {
  std::array<PartSize, kNumParts> rows;
  std::array<std::set<std::string>, kNumParts> types;

  void add(Part part, std::int64_t parameters, std::int64_t bytes, DType dtype) {
    rows[part].parameters += parameters;
    rows[part].bytes += bytes;
    types[part].emplace(dtype_name(dtype));
  }
  std::vector<PartSize> finish() {
    std::vector<PartSize> parts;
    for (std::size_t i = 0; i < kNumParts; ++i) {
      if (rows[i].bytes > 0) {
        rows[i].part = kPartNames[i];
        rows[i].types.assign(types[i].begin(), types[i].end());
        parts.push_back(std::move(rows[i]));
      }
    }
    return parts;
  }
};

Part part_of_tensor(std::string_view name) {
  const auto holds = [name](std::string_view text) {
    return name.find(text) != std::string_view::npos;
  };
  if (holds("norm")) {
    return kNorms;
  }
  if (holds("token_embd") || holds("embed_tokens")) {
    return kEmbedding;
  }
  if (name == "output.weight" || holds("lm_head")) {
    return kHead;
  }
  if (holds("attn")) {
    return kAttention;
  }
  return holds("ffn") || holds("mlp.") ? kFfn : kOther;
}

// Splits cost.h's sum for one sub-block into its norms (vectors of `norm_size` in all) and the
// rest.
void add_sub_block(PartTable& table, Part part, const PartCost& cost, std::int64_t norm_size,
                   const WeightTypes& types) {
  if (cost.parameters == 0) {
    return;
  }
  const auto norm_bytes = static_cast<std::int64_t>(
      byte_size(types.vector, static_cast<std::uint64_t>(norm_size), "norm"));
  table.add(kNorms, norm_size, norm_bytes, types.vector);
  table.add(part, cost.parameters - norm_size, cost.weight_bytes - norm_bytes, types.matrix);
}

std::int64_t attention_norm_size(const ModelSpec& spec, const AttentionSpec& attention) {
  const bool has_inner = spec.qk_norm && attention.kind == AttentionKind::kGqa;
  return spec.hidden_size + (has_inner ? 2 * spec.head_dim : 0);
}

std::string rope_summary(const RopeSpec& rope) {
  std::string base = fmt::format("{}, base {}", rope_kind_name(rope.kind), rope.theta);
  if (rope.kind == RopeKind::kDefault) {
    return base;
  }
  if (rope.kind == RopeKind::kLinear) {
    return fmt::format("{}, factor {}", base, rope.factor);
  }
  if (rope.original_context == 0) {
    return base + ", divisors from the file";
  }
  return fmt::format("{}, factor {}, original context {}", base, rope.factor,
                     rope.original_context);
}

std::string bias_summary(const ModelSpec& spec) {
  std::vector<std::string> places;
  if (spec.attention_bias) {
    places.emplace_back("q, k, v");
  }
  if (spec.attention_output_bias) {
    places.emplace_back("o");
  }
  if (spec.mlp_bias) {
    places.emplace_back("gate, up, down");
  }
  return places.empty() ? "none" : join(places, ", ");
}

struct LayerRun {
  std::size_t first;
  std::size_t last;
  BlockSpec block;
};

std::vector<LayerRun> layer_runs(const Architecture& layers) {
  std::vector<LayerRun> runs;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!runs.empty() && runs.back().block == layers[i]) {
      runs.back().last = i;
    } else {
      runs.push_back({i, i, layers[i]});
    }
  }
  return runs;
}

std::string run_name(const LayerRun& run) {
  return run.first == run.last ? fmt::format("{}", run.first)
                               : fmt::format("{}-{}", run.first, run.last);
}

PartSize total_size(const std::vector<PartSize>& parts) {
  PartSize total;
  total.part = "total";
  for (const PartSize& part : parts) {
    total.parameters += part.parameters;
    total.bytes += part.bytes;
  }
  return total;
}

std::int64_t kv_bytes(const ModelSpec& spec) {
  std::int64_t bytes = 0;
  for (const BlockSpec& block : spec.layers) {
    bytes += attention_cost(spec, block.attention, {}).kv_bytes_per_token;
  }
  return bytes;
}

}  // namespace

std::vector<PartSize> part_sizes(std::span<const StoredTensor> tensors) {
  PartTable table;
  for (const StoredTensor& tensor : tensors) {
    const bool is_parameter = tensor.name != "rope_freqs.weight";
    const auto elements = static_cast<std::int64_t>(num_elements(tensor.shape, tensor.name));
    table.add(part_of_tensor(tensor.name), is_parameter ? elements : 0,
              static_cast<std::int64_t>(tensor.bytes.size()), tensor.dtype);
  }
  return table.finish();
}

std::vector<PartSize> part_sizes(const ModelSpec& spec, ExportTarget target,
                                 const WeightTypes& types) {
  PartTable table;
  for (const LoweredBlock& lowered : lower_model(target, spec)) {
    add_sub_block(table, kAttention, lowered_attention_cost(spec, lowered, types),
                  attention_norm_size(spec, lowered.attention), types);
    add_sub_block(table, kFfn, lowered_ffn_cost(spec, lowered, types), spec.hidden_size, types);
  }
  ModelSpec tied = spec;
  tied.tie_embeddings = true;
  const PartCost embedding = fixed_cost(tied, types);
  add_sub_block(table, kEmbedding, embedding, spec.hidden_size, types);
  const PartCost fixed = fixed_cost(spec, types);
  if (!spec.tie_embeddings) {
    table.add(kHead, fixed.parameters - embedding.parameters,
              fixed.weight_bytes - embedding.weight_bytes, types.embedding);
  }
  table.types[kEmbedding] = {std::string(dtype_name(types.embedding))};
  if (const std::int64_t extra = fixed_cost(spec, types, target).weight_bytes - fixed.weight_bytes;
      extra > 0) {
    table.add(kOther, 0, extra, DType::kF32);
  }
  return table.finish();
}

std::string describe(const ModelSpec& spec, const std::vector<PartSize>& parts) {
  std::string text = fmt::format("{} ({})\n", spec.name.empty() ? "model" : spec.name, spec.family);
  const auto line = [&text](std::string_view label, const std::string& value) {
    text += fmt::format("  {:<12} {}\n", label, value);
  };
  line("hidden size", fmt::format("{}", spec.hidden_size));
  line("heads", fmt::format("{} of width {}", spec.num_heads, spec.head_dim));
  line("vocabulary", fmt::format("{}, head {}", spec.vocab_size,
                                 spec.tie_embeddings ? "tied to the embedding" : "of its own"));
  line("context", fmt::format("{} tokens", spec.context_length));
  if (!spec.context_limit.empty()) {
    line("", spec.context_limit);
  }
  line("rotary", rope_summary(spec.rope));
  line("norm epsilon", fmt::format("{}", spec.rms_norm_eps));
  line("biases", bias_summary(spec));
  if (spec.qk_norm) {
    line("q, k norm", "per head");
  }
  line("KV cache", human_bytes(static_cast<double>(kv_bytes(spec))) + " per token in F16");
  text += fmt::format("{} layers\n", spec.num_layers());
  for (const LayerRun& run : layer_runs(spec.layers)) {
    line(run_name(run), run.block.name());
  }
  text += fmt::format("{:<14} {:>15} {:>15}  {}\n", "part", "parameters", "bytes", "types");
  for (const PartSize& part : parts) {
    text += fmt::format("  {:<12} {:>15} {:>15}  {}\n", part.part, part.parameters, part.bytes,
                        join(part.types, ", "));
  }
  const PartSize total = total_size(parts);
  text += fmt::format("  {:<12} {:>15} {:>15}  {} parameters, {}\n", total.part, total.parameters,
                      total.bytes, human_count(static_cast<double>(total.parameters)),
                      human_bytes(static_cast<double>(total.bytes)));
  return text;
}

InspectJson describe_json(const ModelSpec& spec, const std::vector<PartSize>& parts) {
  InspectJson layers = InspectJson::array();
  for (const LayerRun& run : layer_runs(spec.layers)) {
    layers.push_back({{"first", run.first}, {"last", run.last}, {"block", run.block.name()}});
  }
  InspectJson rows = InspectJson::array();
  for (const PartSize& part : parts) {
    rows.push_back({{"part", part.part},
                    {"parameters", part.parameters},
                    {"bytes", part.bytes},
                    {"types", part.types}});
  }
  const PartSize total = total_size(parts);
  return {{"name", spec.name},
          {"family", spec.family},
          {"hidden_size", spec.hidden_size},
          {"num_heads", spec.num_heads},
          {"head_dim", spec.head_dim},
          {"vocab_size", spec.vocab_size},
          {"context_length", spec.context_length},
          {"context_limit", spec.context_limit},
          {"rms_norm_eps", spec.rms_norm_eps},
          {"tie_embeddings", spec.tie_embeddings},
          {"attention_bias", spec.attention_bias},
          {"attention_output_bias", spec.attention_output_bias},
          {"mlp_bias", spec.mlp_bias},
          {"qk_norm", spec.qk_norm},
          {"rope", {{"kind", rope_kind_name(spec.rope.kind)}, {"theta", spec.rope.theta}}},
          {"num_layers", spec.num_layers()},
          {"layers", layers},
          {"parts", rows},
          {"parameters", total.parameters},
          {"weight_bytes", total.bytes},
          {"kv_bytes_per_token_f16", kv_bytes(spec)}};
}

}  // namespace puzzle
