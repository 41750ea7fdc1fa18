#include "puzzle/stages/score.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/stages/held_states.h"
#include "puzzle/stages/independent_windows.h"
#include "puzzle/stages/named_pairs.h"
#include "puzzle/stages/ratio_of_sums.h"
#include "puzzle/stages/score_candidates.h"
#include "puzzle/stages/score_downstream.h"
#include "puzzle/tensor/head_loss.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
namespace {

// Forward work of one candidate, for progress: the layers from its own on, and the head, which
// costs as much as a number of layers.
class CandidateWork {
 public:
  CandidateWork(const ModelSpec& parent, std::int64_t window) : num_layers_(parent.num_layers()) {
    const FlopsQuery query{.batch = 1, .new_tokens = window};
    const std::int64_t head = head_flops(parent, query);
    const std::int64_t layer = (model_flops(parent, query) - head) / num_layers_;
    head_layers_ = head / std::max<std::int64_t>(1, layer);
  }
  [[nodiscard]] std::int64_t of(std::int64_t layer) const {
    return num_layers_ - layer + head_layers_;
  }
  [[nodiscard]] std::int64_t of(const LayerCandidates& layers) const {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      sum += std::ssize(layers[i]) * of(static_cast<std::int64_t>(i));
    }
    return sum;
  }

 private:
  std::int64_t num_layers_;
  std::int64_t head_layers_;
};

class Scorer {
 public:
  Scorer(RunContext& context, const LoadedModel& parent, const TokenPart& part,
         const ScoreOptions& options)
      : context_(context),
        parent_(parent),
        part_(part),
        units_(independent_units(part)),
        share_(share_of(part.num_windows(), rank_share(context))),
        states_(parent, part, rank_share(context), options.batch_windows * part.window()),
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
  static RankShare rank_share(const RunContext& context) {
    return {context.communicator.rank(), context.communicator.size()};
  }

  // Final hidden states [B·T, D] from the states entering layer `first`.
  [[nodiscard]] at::Tensor finish(const at::Tensor& x, const PassContext& pass,
                                  std::int64_t first) const {
    const at::Tensor last = apply_layers(parent_.weights, parent_.geometry, x, pass, first,
                                         parent_.weights.spec.num_layers());
    return final_hidden(parent_.weights, last).reshape({-1, last.size(-1)});
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

// Walks through the parent's layers and scores what is missing of `layers` in each.
void score_replace_one(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                       const TokenPart& part, const ScoreOptions& options,
                       const LayerCandidates& layers, const LayerCandidates& missing) {
  const CandidateWork work(parent.weights.spec, part.window());
  Progress progress("score", work.of(layers), "layer passes");
  progress.skip(work.of(layers) - work.of(missing));
  Scorer scorer(context, parent, part, options);
  std::size_t end = missing.size();  // one past the last layer that lacks any
  while (end > 0 && missing[end - 1].empty()) {
    --end;
  }
  for (std::size_t i = 0; i < end; ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if (!missing[i].empty()) {
      scorer.score_layer(missing[i], load_scored_layer(context, parent, input, layer), work,
                         progress);
    }
    if (i + 1 < end) {
      scorer.advance(layer);
    }
  }
}

}  // namespace

void ScoreOptions::visit(OptionList& list) {
  list.add("method", method, Choices{{"replace-one", "downstream"}},
           "How variants are scored: by what the parent with one block replaced says on text (KL, "
           "LM loss, top-1 agreement), or by the accuracy that it loses on evaluation sets.");
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the scoring part to use; 0 uses all of it.");
  list.add("pairs", pairs,
           "Whole blocks to score exactly instead of by the sum of their halves: kv1/w768 in every "
           "layer that allows it, or 7:kv1/w768 in one.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward pass.");
  list.add("hidden_mib", hidden_mib, Range<std::int64_t>{1, 1 << 24},
           "MiB of final hidden states kept at a time; candidates of a layer that fit share the "
           "parent's vocabulary projection.");
  list.add("minimal_pairs", minimal_pairs,
           "Minimal-pair sets of method downstream; use others than evaluate does.");
  list.add("multiple_choice", multiple_choice, "Multiple-choice sets of method downstream.");
  list.add("last_word", last_word, "Last-word sets of method downstream.");
  list.section("sets", sets);
}

void check_score(const ScoreOptions& options, const ModelSpec& parent, const SearchSpace& space) {
  const std::size_t num_sets =
      options.minimal_pairs.size() + options.multiple_choice.size() + options.last_word.size();
  if ((options.method == "downstream") != (num_sets > 0)) {
    fail(ErrorKind::kUsage, "score: method is {} and {} evaluation sets are named; {}",
         options.method, num_sets,
         num_sets > 0 ? "set score.method to downstream, or take the sets out"
                      : "name some in score.minimal_pairs, multiple_choice or last_word");
  }
  (void)pairs_by_layer(kScorePairsOption, options.pairs, parent, space);
}

void check_scoring_windows(std::int64_t num_windows) {
  if (num_windows < 2) {
    fail(ErrorKind::kUsage,
         "score: the scoring part has {} windows, expected at least 2 for a standard error; raise "
         "data.scoring_tokens (and score.num_tokens) or lower data.window",
         num_windows);
  }
}

ScoreResult score(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                  const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options) {
  const c10::NoGradGuard no_grad;
  const Stopwatch watch;
  check_score(options, parent.weights.spec, space);
  const bool is_downstream = options.method == "downstream";
  const TokenPart part =
      options.num_tokens > 0 ? scoring.first_tokens(options.num_tokens) : scoring;
  const std::vector<EvalSet> sets = load_score_sets(options, *parent.tokenizer);
  if (!is_downstream) {
    check_scoring_windows(part.num_windows());
  }
  const LayerCandidates layers = all_candidates(
      parent, input, space, is_downstream ? content_key_of(sets) : part.content_key(), options);
  KeyBuilder table_key;
  std::vector<std::string> keys;
  for (const auto& layer : layers) {
    for (const Candidate& candidate : layer) {
      keys.push_back(candidate.key);
      table_key.add("candidate", candidate.key);
    }
  }
  const LayerCandidates missing = missing_candidates(context, layers);
  ScoreResult result{.key = table_key.key(),
                     .num_candidates = std::ssize(keys),
                     .num_scored_now = num_candidates(missing)};
  if (context.communicator.is_first()) {
    context.db.set_current(RunTable::kScores, "score", keys);
  }
  if (result.num_scored_now > 0) {
    with_place("score", [&] {
      if (is_downstream) {
        score_downstream(context, parent, input, sets, missing);
      } else {
        score_replace_one(context, parent, input, part, options, layers, missing);
      }
    });
    result.seconds_per_candidate = watch.seconds() / static_cast<double>(result.num_scored_now);
  }
  // A run killed between the last score and this record makes up for it.
  if (context.communicator.is_first() &&
      (result.num_scored_now > 0 || !context.db.has_stage(result.key))) {
    context.db.put({.key = result.key,
                    .stage = "score",
                    .what = fmt::format("{} candidates", result.num_candidates),
                    .seconds = watch.seconds()});
  }
  return result;
}

}  // namespace puzzle
