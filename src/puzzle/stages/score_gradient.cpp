#include "puzzle/stages/score_gradient.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/layer_gradients.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/stages/score_estimates.h"
#include "puzzle/stages/score_exact.h"

namespace puzzle {
namespace {

// Raise when the same inputs give other rows.
constexpr std::int64_t kGradientVersion = 1;

// A block whose a is the sum of two candidates'.
struct SummedBlock {
  BlockSpec block;
  std::size_t attention = 0;  // positions in the layer's candidates
  std::size_t ffn = 0;
};

std::vector<SummedBlock> summed_blocks(const std::vector<Candidate>& candidates,
                                       const BlockSpec& own) {
  const auto is_named = [&](const BlockSpec& block) {
    return std::any_of(candidates.begin(), candidates.end(),
                       [&](const Candidate& candidate) { return candidate.block == block; });
  };
  std::vector<SummedBlock> sums;
  for (std::size_t a = 0; a < candidates.size(); ++a) {
    for (std::size_t f = 0; f < candidates.size(); ++f) {
      const BlockSpec block{candidates[a].block.attention, candidates[f].block.ffn};
      if (candidates[a].block.ffn == own.ffn && candidates[f].block.attention == own.attention &&
          !is_named(block)) {
        sums.push_back({block, a, f});
      }
    }
  }
  return sums;
}

// What one layer's blocks have gathered: candidates first, then summed blocks.
struct LayerEstimates {
  std::vector<BlockSpec> blocks;
  std::vector<SummedBlock> sums;
  std::vector<RatioOfSums> per_sequence;
  std::vector<RatioOfSums> per_token;
};

class GradientScorer {
 public:
  GradientScorer(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                 const TokenPart& part, const ScoreOptions& options,
                 const LayerCandidates& candidates)
      : context_(context),
        parent_(parent),
        input_(input),
        part_(part),
        options_(options),
        candidates_(candidates),
        units_(independent_units(part)) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      LayerEstimates layer;
      for (const Candidate& candidate : candidates[i]) {
        layer.blocks.push_back(candidate.block);
      }
      layer.sums = summed_blocks(candidates[i], parent.weights.spec.layers[i]);
      for (const SummedBlock& sum : layer.sums) {
        layer.blocks.push_back(sum.block);
      }
      layer.per_sequence.resize(layer.blocks.size(), RatioOfSums(units_.count));
      layer.per_token = layer.per_sequence;
      layers_.push_back(std::move(layer));
    }
  }

  // Windows [first, first + count) of the part.
  void add_windows(std::int64_t first, std::int64_t count, Progress& progress) {
    const TokenBatch batch = part_.slice(first, count).to(context_.device);
    const at::Tensor& embedding = parent_.weights.embedding;
    PassContext pass =
        make_pass(parent_.geometry, part_.window(), embedding.scalar_type(), embedding.device());
    pass.mask = batch.attention_mask();
    const std::uint64_t seed =
        derive_seed(static_cast<std::uint64_t>(context_.seed), "score/gradient");
    GradientWalk walk;
    walk.tokens_BT = batch.tokens_BT;
    walk.pass = &pass;
    walk.uniforms_BTS = window_uniforms(seed, first, count, part_.window(), options_.samples);
    walk.first_layer = first_layer();
    walk_gradients(parent_.weights, parent_.geometry, walk, [&](const LayerGradients& gradients) {
      add_layer(gradients, pass, first);
      progress.advance(count, fmt::format("layer {}", gradients.layer));
    });
  }

  [[nodiscard]] std::int64_t first_layer() const {
    std::int64_t first = 0;
    while (first < std::ssize(candidates_) &&
           candidates_[static_cast<std::size_t>(first)].empty()) {
      ++first;
    }
    return first;
  }

  // Of all ranks, the same on each.
  [[nodiscard]] std::vector<ScoreRow> rows(const std::string& key) {
    std::vector<ScoreRow> rows;
    std::vector<SecondOrderEstimates> estimates;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      for (std::size_t b = 0; b < layers_[i].blocks.size(); ++b) {
        const auto sequence = layers_[i].per_sequence[b].result(context_.communicator);
        const auto token = layers_[i].per_token[b].result(context_.communicator);
        estimates.push_back(
            {{sequence.value, sequence.standard_error}, {token.value, token.standard_error}});
      }
    }
    const std::vector<ScoreValue> combined = combine_estimates(estimates);
    std::size_t at = 0;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      for (const BlockSpec& block : layers_[i].blocks) {
        const auto put = [&](const char* metric, const ScoreValue& value) {
          rows.push_back({.key = key,
                          .layer = static_cast<std::int64_t>(i),
                          .block = block.name(),
                          .method = "gradient",
                          .metric = metric,
                          .value = value.value,
                          .standard_error = value.standard_error,
                          .tokens = part_.num_tokens()});
        };
        put("kl", combined[at]);
        put("kl_per_sequence", estimates[at].per_sequence);
        put("kl_per_token", estimates[at].per_token);
        ++at;
      }
    }
    return rows;
  }

 private:
  void add_layer(const LayerGradients& gradients, const PassContext& pass, std::int64_t first) {
    const auto index = static_cast<std::size_t>(gradients.layer);
    LayerEstimates& layer = layers_[index];
    if (candidates_[index].empty()) {
      return;
    }
    // [C, S, B, T]
    at::Tensor products = at::stack(candidate_products(gradients, pass));
    if (!layer.sums.empty()) {
      std::vector<std::int64_t> attention;
      std::vector<std::int64_t> ffn;
      for (const SummedBlock& sum : layer.sums) {
        attention.push_back(static_cast<std::int64_t>(sum.attention));
        ffn.push_back(static_cast<std::int64_t>(sum.ffn));
      }
      const auto pick = [&](const std::vector<std::int64_t>& positions) {
        return products.index_select(
            0, at::tensor(positions, at::TensorOptions(at::kLong)).to(products.device()));
      };
      products = at::cat({products, pick(attention) + pick(ffn)});
    }
    const at::Tensor sequences = half_mean_square(products.sum(-1, false, at::kDouble));
    const at::Tensor tokens =
        products.square().sum(-1, false, at::kDouble).mean(1).mul_(0.5).to(at::kCPU).contiguous();
    for (std::size_t b = 0; b < layer.blocks.size(); ++b) {
      add(layer.per_sequence[b], sequences[static_cast<std::int64_t>(b)], first, gradients.layer,
          layer.blocks[b]);
      add(layer.per_token[b], tokens[static_cast<std::int64_t>(b)], first, gradients.layer,
          layer.blocks[b]);
    }
  }

  // [C, S, B] -> [C, B] on the CPU.
  static at::Tensor half_mean_square(const at::Tensor& sums_CSB) {
    return sums_CSB.square().mean(1).mul_(0.5).to(at::kCPU).contiguous();
  }

  void add(RatioOfSums& ratio, const at::Tensor& values_B, std::int64_t first, std::int64_t layer,
           const BlockSpec& block) {
    const double* values = values_B.const_data_ptr<double>();
    for (std::int64_t w = 0; w < values_B.numel(); ++w) {
      if (!std::isfinite(values[w])) {
        fail(ErrorKind::kNumeric, "score: layer {}, {}: the variant gives non-finite activations",
             layer, block.name());
      }
      ratio.add(units_.unit_of_window[static_cast<std::size_t>(first + w)], values[w],
                static_cast<double>(part_.window()));
    }
  }

  // ⟨g, δ⟩ of every candidate, [S, B, T] each.
  [[nodiscard]] std::vector<at::Tensor> candidate_products(const LayerGradients& gradients,
                                                           const PassContext& pass) const {
    const auto index = static_cast<std::size_t>(gradients.layer);
    const LayerWeights& own = parent_.weights.layers[index];
    const LayerLibrary library = load_scored_layer(context_, parent_, input_, gradients.layer);
    const at::Tensor& x = gradients.input_BTD;
    at::Tensor middle;  // after the parent's attention
    std::vector<at::Tensor> products;
    for (const Candidate& candidate : candidates_[index]) {
      const LayerWeights block =
          make_block(parent_.weights, library, candidate.layer, candidate.block);
      at::Tensor output;
      if (candidate.block.attention == own.attention.spec) {
        if (!middle.defined()) {
          middle = apply_attention(own.attention, parent_.geometry, x, pass);
        }
        output = apply_ffn(block.ffn, parent_.geometry, middle);
      } else {
        output = apply_layer(block, parent_.geometry, x, pass);
      }
      const at::Tensor delta = output - gradients.output_BTD;
      std::vector<at::Tensor> samples;
      for (const at::Tensor& g : gradients.sampled_SBTD.unbind(0)) {
        samples.push_back((g * delta).sum(-1, false, at::kFloat));
      }
      products.push_back(at::stack(samples));
    }
    return products;
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const ScoreInput& input_;
  const TokenPart& part_;
  const ScoreOptions& options_;
  const LayerCandidates& candidates_;
  WindowUnits units_;
  std::vector<LayerEstimates> layers_;
};

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
  GradientScorer scorer(context, parent, input, part, options, candidates);
  const IndexRange share =
      share_of(part.num_windows(), {context.communicator.rank(), context.communicator.size()});
  Progress progress("score",
                    share.count() * (parent.weights.spec.num_layers() - scorer.first_layer()),
                    "layer passes back");
  for (std::int64_t first = share.begin; first < share.end; first += options.batch_windows) {
    scorer.add_windows(first, std::min(options.batch_windows, share.end - first), progress);
  }
  const std::vector<ScoreRow> rows = scorer.rows(key);
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
