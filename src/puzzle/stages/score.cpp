#include "puzzle/stages/score.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/data/token_batches.h"
#include "puzzle/stages/library.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kScoreVersion = 1;

struct Candidate {
  std::int64_t layer;
  BlockSpec block;
  std::string key;
};

// A layer's candidates: sub-block variants, then named pairs; never the parent's own block.
std::vector<BlockSpec> layer_candidates(const LayerSpace& space, const BlockSpec& own,
                                        const std::vector<BlockSpec>& pairs) {
  std::vector<BlockSpec> blocks;
  const auto add = [&](const BlockSpec& block) {
    if (block != own && std::find(blocks.begin(), blocks.end(), block) == blocks.end()) {
      blocks.push_back(block);
    }
  };
  for (const AttentionSpec& attention : space.attention) {
    add({attention, own.ffn});
  }
  for (const FfnSpec& ffn : space.ffn) {
    add({own.attention, ffn});
  }
  for (const BlockSpec& pair : pairs) {
    add(pair);
  }
  return blocks;
}

std::vector<BlockSpec> pairs_of_layer(const std::vector<std::string>& pairs, std::int64_t layer,
                                      std::int64_t num_layers) {
  std::vector<BlockSpec> blocks;
  for (const std::string& pair : pairs) {
    const std::size_t colon = pair.find(':');
    if (colon == std::string::npos) {
      blocks.push_back(parse_block(pair));
      continue;
    }
    std::int64_t number = -1;
    const auto [end, error] = std::from_chars(pair.data(), pair.data() + colon, number);
    if (error != std::errc() || end != pair.data() + colon || number < 0 || number >= num_layers) {
      fail(ErrorKind::kUsage, "score.pairs: '{}': expected a layer from 0 to {} before the colon",
           pair, num_layers - 1);
    }
    if (number == layer) {
      blocks.push_back(parse_block(pair.substr(colon + 1)));
    }
  }
  return blocks;
}

// Mean over tokens and its standard error over windows, of this rank's [windows, T] values and the
// others'.
struct WindowMean {
  double mean;
  double standard_error;
};

WindowMean mean_over_windows(const at::Tensor& values_NT, std::int64_t windows,
                             Communicator& communicator) {
  const at::Tensor per_window = values_NT.to(at::kDouble).mean(-1);
  at::Tensor sums = at::stack({per_window.sum(), per_window.square().sum()}).to(at::kCPU);
  communicator.all_reduce_sum(sums);
  const auto count = static_cast<double>(windows);
  const double mean = sums[0].item<double>() / count;
  const double variance = std::max(0.0, sums[1].item<double>() / count - mean * mean);
  return {mean, windows > 1 ? std::sqrt(variance / (count - 1.0)) : 0.0};
}

// This rank's windows of the scoring part, and the parent's states on them.
class ScoringStates {
 public:
  ScoringStates(const LoadedModel& parent, const TokenPart& part, IndexRange share,
                std::int64_t batch_windows)
      : parent_(parent) {
    const c10::Device device = parent.weights.embedding.device();
    for (std::int64_t first = share.begin; first < share.end; first += batch_windows) {
      const TokenBatch batch =
          part.slice(first, std::min(batch_windows, share.end - first)).to(device);
      at::Tensor x = embed(parent.weights, batch.tokens_BT);
      PassContext pass = make_pass(parent.geometry, x.size(1), x.scalar_type(), device);
      pass.mask = batch.attention_mask();
      states_.push_back(x);
      passes_.push_back(pass);
      labels_.push_back(batch.labels_BT.reshape({-1}));
    }
  }

  // The parent's final hidden states; walks through all layers once without keeping them.
  [[nodiscard]] at::Tensor parent_final() const {
    std::vector<at::Tensor> finals;
    for (std::size_t b = 0; b < states_.size(); ++b) {
      finals.push_back(finish(b, states_[b], 0));
    }
    return finals.empty() ? at::Tensor() : at::cat(finals);
  }

  // Final hidden states [N, D] with `block` in place of layer `layer`, whose input the states hold.
  [[nodiscard]] at::Tensor candidate_final(const LayerWeights& block, std::int64_t layer) const {
    std::vector<at::Tensor> finals;
    for (std::size_t b = 0; b < states_.size(); ++b) {
      finals.push_back(
          finish(b, apply_layer(block, parent_.geometry, states_[b], passes_[b]), layer + 1));
    }
    return at::cat(finals);
  }

  // Replaces the states entering `layer` by those leaving it.
  void advance(std::int64_t layer) {
    for (std::size_t b = 0; b < states_.size(); ++b) {
      states_[b] = apply_layer(parent_.weights.layers[static_cast<std::size_t>(layer)],
                               parent_.geometry, states_[b], passes_[b]);
    }
  }

  [[nodiscard]] at::Tensor labels() const {
    return labels_.empty() ? at::Tensor() : at::cat(labels_);
  }
  [[nodiscard]] bool empty() const { return states_.empty(); }

 private:
  [[nodiscard]] at::Tensor finish(std::size_t batch, const at::Tensor& x,
                                  std::int64_t first) const {
    const at::Tensor last = apply_layers(parent_.weights, parent_.geometry, x, passes_[batch],
                                         first, parent_.weights.spec.num_layers());
    return final_hidden(parent_.weights, last).reshape({-1, last.size(-1)});
  }

  const LoadedModel& parent_;
  std::vector<at::Tensor> states_;
  std::vector<PassContext> passes_;
  std::vector<at::Tensor> labels_;
};

class Scorer {
 public:
  Scorer(RunContext& context, const LoadedModel& parent, const TokenPart& part,
         const ScoreOptions& options)
      : context_(context),
        parent_(parent),
        part_(part),
        share_(share_of(part.num_windows(),
                        {context.communicator.rank(), context.communicator.size()})),
        states_(parent, part, share_, options.batch_windows),
        parent_final_(states_.parent_final()),
        labels_(states_.labels()) {
    const std::int64_t bytes = std::max<std::int64_t>(1, share_.count() * part.window()) *
                               parent.weights.spec.hidden_size * 4;
    at_a_time_ = std::max<std::int64_t>(1, (options.hidden_mib << 20) / bytes);
  }

  // Scores the candidates of the layer that the states have reached, a group at a time.
  void score_layer(const std::vector<Candidate>& candidates, const LayerLibrary& library,
                   Progress& progress) {
    for (std::size_t first = 0; first < candidates.size();
         first += static_cast<std::size_t>(at_a_time_)) {
      const std::size_t last =
          std::min(candidates.size(), first + static_cast<std::size_t>(at_a_time_));
      std::vector<HeadInput> finals;
      for (std::size_t c = first; c < last && !states_.empty(); ++c) {
        const LayerWeights block =
            make_block(parent_.weights, library, candidates[c].layer, candidates[c].block);
        finals.push_back(
            {states_.candidate_final(block, candidates[c].layer), parent_.weights.head});
      }
      const HeadInput parent{parent_final_, parent_.weights.head};
      const std::vector<TokenLosses> losses = token_losses(&parent, finals, labels_);
      std::vector<ScoreRow> rows;
      for (std::size_t c = first; c < last; ++c) {
        add_rows(candidates[c], states_.empty() ? TokenLosses{} : losses[c - first], rows);
      }
      if (context_.communicator.is_first()) {
        context_.db.put(rows);
      }
      progress.advance(static_cast<std::int64_t>(last - first));
    }
  }

  void advance(std::int64_t layer) { states_.advance(layer); }

 private:
  void add_rows(const Candidate& candidate, const TokenLosses& losses,
                std::vector<ScoreRow>& rows) {
    const auto put = [&](const char* metric, const at::Tensor& values) {
      const at::Tensor shaped = values.defined() ? values.reshape({share_.count(), part_.window()})
                                                 : at::zeros({0, part_.window()});
      const WindowMean mean = mean_over_windows(shaped, part_.num_windows(), context_.communicator);
      if (!std::isfinite(mean.mean)) {
        fail(ErrorKind::kNumeric,
             "score: layer {}, {}: {} is {}; the variant gives non-finite activations",
             candidate.layer, candidate.block.name(), metric, mean.mean);
      }
      rows.push_back({.key = candidate.key,
                      .layer = candidate.layer,
                      .block = candidate.block.name(),
                      .method = "replace-one",
                      .metric = metric,
                      .value = mean.mean,
                      .standard_error = mean.standard_error,
                      .tokens = part_.num_tokens()});
    };
    put("kl", losses.kl);
    put("lm_loss", losses.nll.defined() ? losses.nll - losses.parent_nll : at::Tensor());
    put("top1", losses.top1_agree);
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const TokenPart& part_;
  IndexRange share_;
  ScoringStates states_;
  at::Tensor parent_final_;
  at::Tensor labels_;
  std::int64_t at_a_time_ = 1;
};

std::string candidate_key(const LoadedModel& parent, const ScoreInput& input, const TokenPart& part,
                          std::int64_t layer, const BlockSpec& block) {
  KeyBuilder key;
  key.add("stage", "score").add("version", kScoreVersion).add("method", "replace-one");
  key.add("parent", parent.key).add("library", input.library_key).add("part", part.content_key());
  key.add("layer", layer).add("block", block.name());
  return key.key();
}

std::vector<std::vector<Candidate>> all_candidates(const LoadedModel& parent,
                                                   const ScoreInput& input,
                                                   const SearchSpace& space, const TokenPart& part,
                                                   const ScoreOptions& options) {
  std::vector<std::vector<Candidate>> layers;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    std::vector<Candidate> candidates;
    const auto pairs = pairs_of_layer(options.pairs, layer, parent.weights.spec.num_layers());
    for (const BlockSpec& block :
         layer_candidates(space.layers[i], parent.weights.spec.layers[i], pairs)) {
      candidates.push_back({layer, block, candidate_key(parent, input, part, layer, block)});
    }
    layers.push_back(std::move(candidates));
  }
  return layers;
}

// What rank 0's database lacks, known to every rank.
std::vector<std::vector<Candidate>> missing_candidates(RunContext& context,
                                                       std::vector<std::vector<Candidate>> layers) {
  std::string done;
  if (context.communicator.is_first()) {
    const std::set<std::string> keys = context.db.keys(RunTable::kScores);
    for (const auto& layer : layers) {
      for (const Candidate& candidate : layer) {
        done += keys.contains(candidate.key) ? '1' : '0';
      }
    }
  }
  done = context.communicator.broadcast_string(done, 0);
  std::size_t position = 0;
  for (auto& layer : layers) {
    std::erase_if(layer, [&](const Candidate&) { return done.at(position++) == '1'; });
  }
  return layers;
}

}  // namespace

void ScoreOptions::visit(OptionList& list) {
  list.add("method", method, Choices{{"replace-one"}}, "How variants are scored.");
  list.add("num_tokens", num_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Tokens of the scoring part to use; 0 uses all of it.");
  list.add("pairs", pairs,
           "Whole blocks to score exactly instead of by the sum of their halves: kv1/w768 in every "
           "layer, "
           "or 7:kv1/w768 in one.");
  list.add("batch_windows", batch_windows, Range<std::int64_t>{1, 1 << 20},
           "Windows per forward pass.");
  list.add("hidden_mib", hidden_mib, Range<std::int64_t>{1, 1 << 24},
           "MiB of final hidden states kept at a time; candidates of a layer that fit share the "
           "parent's "
           "vocabulary projection.");
}

ScoreResult score(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                  const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options) {
  const c10::NoGradGuard no_grad;
  const Stopwatch watch;
  const TokenPart part =
      options.num_tokens > 0 ? scoring.first_tokens(options.num_tokens) : scoring;
  if (part.num_windows() == 0) {
    fail(ErrorKind::kUsage, "score: the scoring part has no windows; set data.scoring_tokens");
  }
  const auto layers = all_candidates(parent, input, space, part, options);
  KeyBuilder table_key;
  std::vector<std::string> keys;
  for (const auto& layer : layers) {
    for (const Candidate& candidate : layer) {
      keys.push_back(candidate.key);
      table_key.add("candidate", candidate.key);
    }
  }
  const auto missing = missing_candidates(context, layers);
  ScoreResult result{.key = table_key.key(), .num_candidates = std::ssize(keys)};
  for (const auto& layer : missing) {
    result.num_scored_now += std::ssize(layer);
  }
  if (context.communicator.is_first()) {
    context.db.set_current(RunTable::kScores, "score", keys);
  }
  if (result.num_scored_now == 0) {
    return result;
  }
  Scorer scorer(context, parent, part, options);
  Progress progress("score", result.num_candidates, "candidates");
  progress.skip(result.num_candidates - result.num_scored_now);
  std::int64_t left = result.num_scored_now;
  for (std::size_t i = 0; left > 0; ++i) {
    const auto layer = static_cast<std::int64_t>(i);
    if (!missing[i].empty()) {
      const auto file = layer_file(input.library_folder, layer);
      const LayerLibrary library =
          std::filesystem::exists(file)
              ? load_layer_library(file, parent.weights.spec, context.device, context.type)
              : LayerLibrary{};
      scorer.score_layer(missing[i], library, progress);
      left -= std::ssize(missing[i]);
    }
    if (left > 0) {
      scorer.advance(layer);
    }
  }
  result.seconds_per_candidate = watch.seconds() / static_cast<double>(result.num_scored_now);
  if (context.communicator.is_first()) {
    context.db.put({.key = result.key,
                    .stage = "score",
                    .what = fmt::format("{} candidates", result.num_scored_now),
                    .seconds = watch.seconds()});
  }
  return result;
}

}  // namespace puzzle
