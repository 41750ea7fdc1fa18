#include "puzzle/stages/score.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include <c10/core/GradMode.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/stages/named_pairs.h"
#include "puzzle/stages/score_candidates.h"
#include "puzzle/stages/score_downstream.h"
#include "puzzle/stages/score_exact.h"
#include "puzzle/stages/score_gradient.h"
#include "puzzle/stages/score_hybrid.h"
#include "puzzle/tensor/with_place.h"

namespace puzzle {
void ScoreOptions::visit(OptionList& list) {
  list.add("method", method, Choices{{"hybrid", "gradient", "replace-one", "downstream"}},
           "How variants are scored: replace-one compares on text what the parent with one block "
           "replaced says (KL, LM loss, top-1 agreement); gradient estimates that KL for all of "
           "them from a few backward passes; hybrid does that and then replace-one where an "
           "estimate may be wrong or decides; downstream takes the accuracy lost on evaluation "
           "sets.");
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
  list.add("samples", samples, Range<std::int64_t>{1, 1024},
           "Labels drawn per position, one backward pass each; gradient and hybrid.");
  list.add(
      "exact_above", exact_above, Range<double>{0.0, 1e6},
      "Hybrid scores exactly what it estimates above this, in nats: second order fails there.");
  list.add("exact_every", exact_every, Range<std::int64_t>{0, kMaxLayers},
           "Hybrid scores exactly an attention and an FFN variant of median damage in every n-th "
           "layer, and corrects the other estimates by the factor found; 0: in none.");
  list.add(
      "exact_giants", exact_giants, Range<double>{0.0, 1e6},
      "Hybrid also scores exactly what changes a giant token's state by more than this part of "
      "it; a giant is ten times as long as the median of its window.");
  list.add(
      "exact_share", exact_share, Range<double>{0.0, 1e3},
      "What hybrid may spend in all, estimates included, as a share of a full forward pass per "
      "variant; what is left after the doubtful ones goes to those that the search chooses.");
  list.add("minimal_pairs", questions.minimal_pairs,
           "Minimal-pair sets of method downstream; use others than evaluate does.");
  list.add("multiple_choice", questions.multiple_choice,
           "Multiple-choice sets of method downstream.");
  list.add("last_word", questions.last_word, "Last-word sets of method downstream.");
  list.section("sets", sets);
}

void check_score(const ScoreOptions& options, const ModelSpec& parent, const SearchSpace& space) {
  const std::size_t num_sets = options.questions.all().size();
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

namespace {

// The candidates of these keys, and no others.
LayerCandidates restricted_to(const LayerCandidates& layers, const std::set<std::string>& keys) {
  LayerCandidates kept = layers;
  for (auto& layer : kept) {
    std::erase_if(layer, [&](const Candidate& candidate) { return !keys.contains(candidate.key); });
  }
  return kept;
}

std::vector<Candidate> with_keys(const LayerCandidates& layers, const std::set<std::string>& keys) {
  std::vector<Candidate> found;
  for (const auto& layer : layers) {
    for (const Candidate& candidate : layer) {
      if (keys.contains(candidate.key)) {
        found.push_back(candidate);
      }
    }
  }
  return found;
}

// Exact scores of some candidates; returns how many were not there yet.
std::int64_t score_exactly(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                           const TokenPart& part, const ScoreOptions& options,
                           const LayerCandidates& wanted) {
  const LayerCandidates missing = missing_candidates(context, wanted);
  const std::int64_t count = num_candidates(missing);
  if (count > 0) {
    with_place("score",
               [&] { score_replace_one(context, parent, input, part, options, wanted, missing); });
  }
  return count;
}

// Rank 0's database answers for all.
bool is_known(RunContext& context, const std::string& key) {
  return ask_first_rank(context.communicator, 1,
                        [&](std::size_t) { return context.db.has(RunTable::kScores, key); })
      .front();
}

// What rank 0 picks, on every rank.
LayerCandidates picked_by_first(RunContext& context, const LayerCandidates& layers,
                                const std::function<std::vector<Candidate>()>& pick) {
  std::string keys;
  if (context.communicator.is_first()) {
    for (const Candidate& candidate : pick()) {
      keys += candidate.key + " ";
    }
  }
  const std::vector<std::string> wanted =
      split(context.communicator.broadcast_string(keys, 0), ' ');
  return restricted_to(layers, {wanted.begin(), wanted.end()});
}

class Stage {
 public:
  Stage(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
        const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options)
      : context_(context),
        parent_(parent),
        input_(input),
        space_(space),
        options_(options),
        part_(scoring.limited_to(options.num_tokens)) {}

  [[nodiscard]] LayerCandidates candidates(const std::string& method,
                                           const std::string& content) const {
    return all_candidates(parent_, input_, space_, content, method, options_.pairs);
  }
  [[nodiscard]] LayerCandidates exact_candidates() const {
    return candidates("replace-one", part_.content_key());
  }

  ScoreResult replace_one() {
    check_scoring_windows(part_.num_windows());
    const LayerCandidates layers = exact_candidates();
    set_current(keys_of(layers));
    return {.key = "", .num_candidates = num_candidates(layers), .num_scored_now = exactly(layers)};
  }

  ScoreResult downstream() {
    const std::vector<EvalSet> sets = load_score_sets(options_, *parent_.tokenizer);
    const LayerCandidates layers = candidates("downstream", content_key_of(sets));
    set_current(keys_of(layers));
    const LayerCandidates missing = missing_candidates(context_, layers);
    const std::int64_t count = num_candidates(missing);
    if (count > 0) {
      with_place("score", [&] { score_downstream(context_, parent_, input_, sets, missing); });
    }
    return {.key = "", .num_candidates = num_candidates(layers), .num_scored_now = count};
  }

  ScoreResult estimates() {
    check_scoring_windows(part_.num_windows());
    const LayerCandidates layers = candidates("gradient", part_.content_key());
    const std::string key = gradient_key(context_, layers, options_);
    ScoreResult result{.key = "", .num_candidates = num_candidates(layers)};
    set_current({key});
    if (!is_known(context_, key)) {
      with_place("score",
                 [&] { score_gradient(context_, parent_, input_, part_, options_, layers, key); });
      result.num_scored_now = result.num_candidates;
    }
    if (options_.method == "hybrid") {
      result.num_scored_now += exactly_too([&](const LayerCandidates& exact) {
        return doubtful_candidates(exact, context_.db.scores_of(key), parent_.weights.spec,
                                   options_);
      });
    }
    return result;
  }

  // Adds what `pick` names, as far as the budget goes, to the current scores. Returns how many were
  // not there yet; `added`, if not null, how many became current.
  std::int64_t exactly_too(
      const std::function<std::vector<Candidate>(const LayerCandidates& exact)>& pick,
      std::int64_t* added = nullptr) {
    const LayerCandidates exact = exact_candidates();
    const std::set<std::string> current = current_scores();
    const LayerCandidates wanted = picked_by_first(
        context_, exact, [&] { return within_budget(pick(exact), exact, current); });
    if (added != nullptr) {
      *added = num_candidates(wanted);
    }
    const std::int64_t scored = exactly(wanted);
    std::vector<std::string> keys(current.begin(), current.end());
    for (const std::string& key : keys_of(wanted)) {
      keys.push_back(key);
    }
    set_current(keys);
    return scored;
  }

  // Of the current scores.
  [[nodiscard]] std::string table_key() const {
    KeyBuilder key;
    for (const std::string& current : current_) {
      key.add("scores", current);
    }
    return key.key();
  }

 private:
  // Rank 0's; empty on others.
  [[nodiscard]] std::set<std::string> current_scores() const {
    std::set<std::string> current;
    if (context_.communicator.is_first()) {
      for (const ScoreRow& row : context_.db.scores()) {
        current.insert(row.key);
      }
    }
    return current;
  }

  // What of `picked` the budget of exact scores has room for beside the current ones; on rank 0.
  [[nodiscard]] std::vector<Candidate> within_budget(const std::vector<Candidate>& picked,
                                                     const LayerCandidates& exact,
                                                     const std::set<std::string>& current) const {
    const ModelSpec& spec = parent_.weights.spec;
    std::vector<Candidate> taken =
        affordable(picked, with_keys(exact, current),
                   exact_budget(exact, spec, part_.window(), options_), spec, part_.window());
    const auto wanting = std::ranges::count_if(
        picked, [&](const Candidate& candidate) { return !current.contains(candidate.key); });
    if (wanting > std::ssize(taken)) {
      log_info(
          "score: {} of {} variants with doubtful estimates are scored exactly; the budget of "
          "exact scores is spent (score.exact_share)",
          taken.size(), wanting);
    }
    return taken;
  }

  std::int64_t exactly(const LayerCandidates& wanted) {
    return score_exactly(context_, parent_, input_, part_, options_, wanted);
  }

  void set_current(const std::vector<std::string>& keys) {
    current_ = keys;
    if (context_.communicator.is_first()) {
      context_.db.set_current(RunTable::kScores, "score", keys);
    }
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const ScoreInput& input_;
  const SearchSpace& space_;
  const ScoreOptions& options_;
  TokenPart part_;
  std::vector<std::string> current_;
};

}  // namespace

bool is_estimated(const ScoreOptions& options) {
  return options.method == "gradient" || options.method == "hybrid";
}

ScoreResult score(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                  const SearchSpace& space, const TokenPart& scoring, const ScoreOptions& options) {
  const c10::NoGradGuard no_grad;
  const Stopwatch watch;
  check_score(options, parent.weights.spec, space);
  Stage stage(context, parent, input, space, scoring, options);
  ScoreResult result = is_estimated(options)            ? stage.estimates()
                       : options.method == "downstream" ? stage.downstream()
                                                        : stage.replace_one();
  result.key = context.communicator.broadcast_string(stage.table_key(), 0);  // rank 0 knows it
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

std::int64_t score_chosen(RunContext& context, const LoadedModel& parent, const ScoreInput& input,
                          const SearchSpace& space, const TokenPart& scoring,
                          const ScoreOptions& options, const std::vector<Architecture>& chosen) {
  if (options.method != "hybrid") {
    return 0;
  }
  const c10::NoGradGuard no_grad;
  const Stopwatch watch;
  Stage stage(context, parent, input, space, scoring, options);
  std::int64_t added = 0;
  const std::int64_t scored = stage.exactly_too(
      [&](const LayerCandidates& exact) {
        return chosen_candidates(exact, chosen, parent.weights.spec);
      },
      &added);
  if (context.communicator.is_first() && scored > 0) {
    context.db.put({.key = stage.table_key(),
                    .stage = "score",
                    .what = fmt::format("{} that the search chose", added),
                    .seconds = watch.seconds()});
  }
  return added;
}

}  // namespace puzzle
