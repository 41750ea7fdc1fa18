#include "puzzle/stages/score_exact.h"

#include <algorithm>
#include <cmath>
#include <span>

#include <ATen/ATen.h>

#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/batch_forward.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

class Scorer {
 public:
  Scorer(RunContext& context, const LoadedModel& parent, const TokenPart& part,
         const ScoreOptions& options)
      : context_(context),
        parent_(parent),
        part_(part),
        units_(independent_units(part)),
        share_(share_of(part.num_windows(), rank_share(context.communicator))),
        states_(parent, part, rank_share(context.communicator),
                options.batch_windows * part.window()),
        labels_(
            part.slice(share_.begin, share_.count()).labels_BT.reshape({-1}).to(context.device)) {
    std::vector<at::Tensor> finals;
    for (std::int64_t b = 0; b < states_.num_batches(); ++b) {
      finals.push_back(finish(states_.states(b), states_.pass(b), 0));
    }
    parent_final_ = finals.empty() ? at::Tensor() : at::cat(finals);
    const std::int64_t bytes = std::max<std::int64_t>(1, share_.count() * part.window()) *
                               parent.weights.spec.hidden_size * 4;
    at_a_time_ = std::max<std::int64_t>(1, (options.hidden_mib << 20) / bytes);
  }

  // Scores the candidates of the layer that the states have reached, a group at a time.
  void score_layer(const std::vector<Candidate>& candidates, const LayerLibrary& library,
                   const CandidateWork& work, Progress& progress) {
    for (std::size_t first = 0; first < candidates.size();
         first += static_cast<std::size_t>(at_a_time_)) {
      const std::size_t last =
          std::min(candidates.size(), first + static_cast<std::size_t>(at_a_time_));
      std::vector<HeadInput> finals;
      for (std::size_t c = first; c < last && share_.count() > 0; ++c) {
        const Candidate& candidate = candidates[c];
        finals.push_back(
            {candidate_final(make_block(parent_.weights, library, candidate.layer, candidate.block),
                             candidate.layer),
             parent_.weights.head});
      }
      const HeadInput parent{parent_final_, parent_.weights.head};
      const std::vector<TokenLosses> losses = token_losses(&parent, finals, labels_);
      std::vector<ScoreRow> rows;
      for (std::size_t c = first; c < last; ++c) {
        add_rows(candidates[c], finals.empty() ? TokenLosses{} : losses[c - first], rows);
      }
      if (context_.communicator.is_first()) {
        context_.db.put(rows);
      }
      const std::int64_t layer = candidates[first].layer;
      progress.advance(static_cast<std::int64_t>(last - first) * work.of(layer),
                       fmt::format("layer {}", layer));
    }
  }

  void advance(std::int64_t layer) {
    states_.advance(parent_.weights.layers[static_cast<std::size_t>(layer)]);
  }

 private:
  // Final hidden states [B·T, D] from the states entering layer `first`.
  [[nodiscard]] at::Tensor finish(const at::Tensor& x, const PassContext& pass,
                                  std::int64_t first) const {
    return final_rows(parent_.weights, parent_.geometry, x, pass, first);
  }

  // Final hidden states [N, D] with `block` in place of layer `layer`, whose input the states hold.
  [[nodiscard]] at::Tensor candidate_final(const LayerWeights& block, std::int64_t layer) const {
    std::vector<at::Tensor> finals;
    for (std::int64_t b = 0; b < states_.num_batches(); ++b) {
      const PassContext pass = states_.pass(b);
      finals.push_back(
          finish(apply_layer(block, parent_.geometry, states_.states(b), pass), pass, layer + 1));
    }
    return at::cat(finals);
  }

  // Mean of [N] values over the tokens that `counted_N` marks, of all ranks.
  [[nodiscard]] RatioOfSums::Result mean_of(const at::Tensor& values_N,
                                            const at::Tensor& counted_N) const {
    RatioOfSums ratio(units_.count);
    if (share_.count() > 0) {
      ratio.add_windows(std::span(units_.unit_of_window)
                            .subspan(static_cast<std::size_t>(share_.begin),
                                     static_cast<std::size_t>(share_.count())),
                        values_N, counted_N);
    }
    return ratio.result(context_.communicator);
  }

  void add_rows(const Candidate& candidate, const TokenLosses& losses,
                std::vector<ScoreRow>& rows) {
    const auto put = [&](const char* metric, const at::Tensor& values, const at::Tensor& counted) {
      const RatioOfSums::Result mean = mean_of(values, counted);
      if (!std::isfinite(mean.value)) {
        fail(ErrorKind::kNumeric,
             "score: layer {}, {}: {} is {}; the variant gives non-finite activations",
             candidate.layer, candidate.block.name(), metric, mean.value);
      }
      rows.push_back({.key = candidate.key,
                      .layer = candidate.layer,
                      .block = candidate.block.name(),
                      .method = "replace-one",
                      .metric = metric,
                      .value = mean.value,
                      .standard_error = mean.standard_error,
                      .tokens = part_.num_tokens()});
    };
    const at::Tensor labelled = labels_.ge(0);
    const at::Tensor all = at::ones_like(labelled);
    put("kl", losses.kl, all);
    put("lm_loss", losses.nll.defined() ? losses.nll - losses.parent_nll : at::Tensor(), labelled);
    put("top1", losses.top1_agree, all);
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const TokenPart& part_;
  WindowUnits units_;
  IndexRange share_;
  HeldStates states_;
  at::Tensor labels_;  // [N]
  at::Tensor parent_final_;
  std::int64_t at_a_time_ = 1;
};

}  // namespace

CandidateWork::CandidateWork(const ModelSpec& parent, std::int64_t window)
    : num_layers_(parent.num_layers()) {
  const FlopsQuery query{.batch = 1, .new_tokens = window};
  const std::int64_t head = head_flops(parent, query);
  const std::int64_t layer = (model_flops(parent, query) - head) / num_layers_;
  head_layers_ = head / std::max<std::int64_t>(1, layer);
}

std::int64_t CandidateWork::of(const LayerCandidates& layers) const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    sum += std::ssize(layers[i]) * of(static_cast<std::int64_t>(i));
  }
  return sum;
}

void score_replace_one(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                       const TokenPart& part, const ScoreOptions& options,
                       const LayerCandidates& layers, const LayerCandidates& missing) {
  const CandidateWork work(parent.weights.spec, part.window());
  Progress progress("score", work.of(layers), "layer passes");
  progress.skip(work.of(layers) - work.of(missing));
  Scorer scorer(context, parent, part, options);
  const std::size_t end = end_of_candidates(missing);
  for (std::size_t i = 0; i < end; ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if (!missing[i].empty()) {
      scorer.score_layer(missing[i],
                         find_layer_library(input.library_folder, layer, parent.weights), work,
                         progress);
    }
    if (i + 1 < end) {
      scorer.advance(layer);
    }
  }
}

}  // namespace puzzle
