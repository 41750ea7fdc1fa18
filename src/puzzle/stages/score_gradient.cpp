#include "puzzle/stages/score_gradient.h"

#include <algorithm>

#include "puzzle/base/hash.h"
#include "puzzle/stages/score_exact.h"
#include "puzzle/stages/second_order.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other rows.
constexpr std::int64_t kGradientVersion = 3;

// Candidates, then what can be had as the sum of two of them.
SecondOrderLayer plan_layer(const std::vector<Candidate>& candidates, const BlockSpec& own) {
  SecondOrderLayer layer;
  for (const Candidate& candidate : candidates) {
    layer.blocks.push_back({candidate.block, std::ssize(layer.evaluated)});
    layer.evaluated.push_back(candidate.block);
  }
  const std::vector<BlockSpec>& named = layer.evaluated;
  for (std::size_t a = 0; a < named.size(); ++a) {
    for (std::size_t f = 0; f < named.size(); ++f) {
      const BlockSpec block{named[a].attention, named[f].ffn};
      if (named[a].ffn == own.ffn && named[f].attention == own.attention &&
          std::find(named.begin(), named.end(), block) == named.end()) {
        layer.blocks.push_back({block, static_cast<std::int64_t>(a), static_cast<std::int64_t>(f)});
      }
    }
  }
  return layer;
}

}  // namespace

std::string gradient_key(const RunContext& context, const LayerCandidates& candidates,
                         const ScoreOptions& options) {
  KeyBuilder key;
  key.add("stage", "score").add("version", kGradientVersion).add("method", "gradient");
  key.add("samples", options.samples).add("seed", context.seed);
  for (const std::string& candidate : keys_of(candidates)) {
    key.add("candidate", candidate);
  }
  return key.key();
}

void score_gradient(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                    const TokenPart& part, const ScoreOptions& options,
                    const LayerCandidates& candidates, const std::string& key) {
  SecondOrderInput second_order;
  second_order.name = "score";
  second_order.model = &parent.weights;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    second_order.layers.push_back(plan_layer(candidates[i], parent.weights.spec.layers[i]));
  }
  second_order.library = [&](std::int64_t layer) {
    return find_layer_library(input.library_folder, layer, parent.weights);
  };
  second_order.seed = derive_seed(static_cast<std::uint64_t>(context.seed), "score/gradient");
  second_order.samples = options.samples;
  second_order.batch_windows = options.batch_windows;
  const auto estimates = estimate_second_order(context, parent, second_order, part);
  std::vector<ScoreRow> rows;
  for (std::size_t i = 0; i < estimates.size(); ++i) {
    for (const BlockEstimate& estimate : estimates[i]) {
      const auto put = [&](const char* metric, const ScoreValue& value) {
        rows.push_back({.key = key,
                        .layer = static_cast<std::int64_t>(i),
                        .block = estimate.block.name(),
                        .method = "gradient",
                        .metric = metric,
                        .value = value.value,
                        .standard_error = value.standard_error,
                        .tokens = part.num_tokens()});
      };
      put("kl", estimate.combined);
      put("kl_per_sequence", estimate.second_order.per_sequence);
      put("kl_per_token", estimate.second_order.per_token);
      put("giant_change", {estimate.giant_change, 0.0});
    }
  }
  if (context.communicator.is_first()) {
    context.db.put(rows);
  }
}

std::int64_t gradient_passes(const ModelSpec& parent, std::int64_t window, std::int64_t samples,
                             std::int64_t num_candidates) {
  const CandidateWork work(parent, window);
  return (2 + samples) * parent.num_layers() + 2 * work.head() + num_candidates;
}

}  // namespace puzzle
