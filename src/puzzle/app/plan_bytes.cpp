#include "puzzle/app/plan_bytes.h"

#include <algorithm>
#include <filesystem>

#include "puzzle/arch/cost.h"
#include "puzzle/text/corpus.h"

namespace puzzle {
namespace {

double nested_bytes(const ModelSpec& spec, std::int64_t width) {
  const auto size = static_cast<double>(width);
  const PartCost whole = ffn_cost(spec, FfnSpec::swiglu(width), WeightTypes{});
  return static_cast<double>(whole.weight_bytes) + 0.5 * size * size * kFp32Bytes;
}

}  // namespace

VariantBytes variant_bytes(const ModelSpec& spec, const LayerSpace& layer, const BlockSpec& own,
                           const std::vector<PlannedStudent>& students) {
  VariantBytes bytes;
  for (const AttentionSpec& attention : layer.attention) {
    if (attention != own.attention) {
      bytes.initial +=
          static_cast<double>(attention_cost(spec, attention, WeightTypes{}).weight_bytes);
    }
  }
  std::int64_t widest = 0;
  for (const FfnSpec& ffn : layer.ffn) {
    if (ffn != own.ffn && ffn.kind == FfnKind::kSwiglu) {
      widest = std::max(widest, ffn.width);
    } else if (ffn != own.ffn) {
      bytes.initial += static_cast<double>(ffn_cost(spec, ffn, WeightTypes{}).weight_bytes);
    }
  }
  bytes.initial += widest > 0 ? nested_bytes(spec, widest) : 0.0;
  for (const PlannedStudent& student : students) {
    const FfnSpec& ffn = student.block.ffn;
    if (student.role == StudentRole::kNestedFfn) {
      bytes.trained += nested_bytes(spec, ffn.width);
    } else if (student.role == StudentRole::kFfn && ffn.kind == FfnKind::kSwiglu) {
      bytes.trained += static_cast<double>(ffn_cost(spec, ffn, WeightTypes{}).weight_bytes);
    }
  }
  return bytes;
}

double fit_bytes(const ModelSpec& spec) {
  const auto hidden = static_cast<double>(spec.hidden_size);
  double bytes = 0;
  for (const BlockSpec& block : spec.layers) {
    const auto width = static_cast<double>(block.ffn.width);
    bytes =
        std::max(bytes, 8.0 * (4.0 * width * width + 3.0 * width * hidden + 6.0 * hidden * hidden));
  }
  return bytes;
}

double corpus_bytes(const DataOptions& data) {
  double bytes = 0;
  for (const std::string& text : data.sources) {
    const CorpusSource source = parse_corpus_source(text);
    if (!std::filesystem::exists(source.path)) {
      bytes = 0;
      break;
    }
    for (const std::filesystem::path& file : corpus_files(source)) {
      bytes += static_cast<double>(std::filesystem::file_size(file));
    }
  }
  const auto needed =
      static_cast<double>(data.train_tokens + data.calibration_tokens + data.scoring_tokens +
                          data.validation_tokens + data.test_tokens);
  return bytes > 0.0 ? bytes : kBytesPerToken * needed;
}

HeldBytes held_bytes(const ModelSpec& spec, std::int64_t tokens, std::int64_t limit_mib) {
  const double all =
      static_cast<double>(tokens) * static_cast<double>(spec.hidden_size) * kFp32Bytes;
  const double limit = static_cast<double>(limit_mib) * kMib;
  return {std::min(all, limit), std::max(0.0, all - limit)};
}

}  // namespace puzzle
