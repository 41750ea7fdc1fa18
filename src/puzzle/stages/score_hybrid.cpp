#include "puzzle/stages/score_hybrid.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "puzzle/stages/score_exact.h"
#include "puzzle/stages/score_gradient.h"

namespace puzzle {
namespace {

bool is_whole_block(const Candidate& candidate, const ModelSpec& parent) {
  const BlockSpec& own = parent.layers[static_cast<std::size_t>(candidate.layer)];
  return candidate.block.attention != own.attention && candidate.block.ffn != own.ffn;
}

bool is_attention_variant(const Candidate& candidate, const ModelSpec& parent) {
  return candidate.block.attention !=
         parent.layers[static_cast<std::size_t>(candidate.layer)].attention;
}

// Why an exact score is wanted, in the order in which the budget goes to them.
enum class DoubtReason { kWholeBlock, kFirstLayer, kLastLayer, kCalibration, kGiants, kLarge };

struct Doubt {
  DoubtReason reason = DoubtReason::kCalibration;
  double estimate = 0.0;
  const Candidate* candidate = nullptr;
};

// What method gradient says of every candidate.
class Estimates {
 public:
  explicit Estimates(const std::vector<ScoreRow>& rows) {
    for (const ScoreRow& row : rows) {
      if (row.method == "gradient" && (row.metric == "kl" || row.metric == "giant_change")) {
        (row.metric == "kl" ? values_ : giant_changes_)[{row.layer, row.block}] = row.value;
      }
    }
  }
  [[nodiscard]] double value(const Candidate& candidate) const {
    return values_.at({candidate.layer, candidate.block.name()});
  }
  [[nodiscard]] double giant_change(const Candidate& candidate) const {
    return giant_changes_.at({candidate.layer, candidate.block.name()});
  }

 private:
  using Values = std::map<std::pair<std::int64_t, std::string>, double>;
  Values values_;
  Values giant_changes_;
};

std::optional<DoubtReason> doubt_of(const Candidate& candidate, const Estimates& known,
                                    const ModelSpec& parent, const ScoreOptions& options) {
  if (is_whole_block(candidate, parent)) {
    return DoubtReason::kWholeBlock;
  }
  if (candidate.layer == 0) {
    return DoubtReason::kFirstLayer;
  }
  if (candidate.layer + 1 == parent.num_layers()) {
    return DoubtReason::kLastLayer;
  }
  if (known.giant_change(candidate) > options.exact_giants) {
    return DoubtReason::kGiants;
  }
  if (known.value(candidate) > options.exact_above) {
    return DoubtReason::kLarge;
  }
  return std::nullopt;
}

}  // namespace

std::int64_t exact_budget(const LayerCandidates& candidates, const ModelSpec& parent,
                          std::int64_t window, const ScoreOptions& options) {
  const CandidateWork work(parent, window);
  const std::int64_t count = num_candidates(candidates);
  const double whole = static_cast<double>(count * work.whole_model());
  return static_cast<std::int64_t>(options.exact_share * whole) -
         gradient_passes(parent, window, options.samples, count);
}

std::vector<Candidate> doubtful_candidates(const LayerCandidates& candidates,
                                           const std::vector<ScoreRow>& estimates,
                                           const ModelSpec& parent, const ScoreOptions& options) {
  const Estimates known(estimates);
  std::vector<Doubt> doubts;
  for (const auto& layer : candidates) {
    std::vector<Doubt> attention, ffn;  // estimates that seem fine
    for (const Candidate& candidate : layer) {
      const double estimate = known.value(candidate);
      if (const auto reason = doubt_of(candidate, known, parent, options)) {
        doubts.push_back({*reason, estimate, &candidate});
      } else {
        (is_attention_variant(candidate, parent) ? attention : ffn)
            .push_back({DoubtReason::kCalibration, estimate, &candidate});
      }
    }
    for (std::vector<Doubt>* fine : {&attention, &ffn}) {
      if (options.exact_every > 0 && !fine->empty() &&
          fine->front().candidate->layer % options.exact_every == 0) {
        std::ranges::stable_sort(*fine, {}, &Doubt::estimate);
        doubts.push_back((*fine)[fine->size() / 2]);
      }
    }
  }
  std::stable_sort(doubts.begin(), doubts.end(), [](const Doubt& a, const Doubt& b) {
    return std::pair(a.reason, a.estimate) < std::pair(b.reason, b.estimate);
  });
  std::vector<Candidate> ordered;
  for (const Doubt& doubt : doubts) {
    ordered.push_back(*doubt.candidate);
  }
  return ordered;
}

std::vector<Candidate> chosen_candidates(const LayerCandidates& candidates,
                                         const std::vector<Architecture>& chosen,
                                         const ModelSpec& parent) {
  std::vector<Candidate> used;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    for (const Candidate& candidate : candidates[i]) {
      const BlockSpec& own = parent.layers[i];
      const bool is_used =
          std::any_of(chosen.begin(), chosen.end(), [&](const Architecture& architecture) {
            const BlockSpec& block = architecture.at(i);
            return candidate.block == block ||
                   (candidate.block.attention == block.attention &&
                    candidate.block.ffn == own.ffn) ||
                   (candidate.block.attention == own.attention && candidate.block.ffn == block.ffn);
          });
      if (is_used) {
        used.push_back(candidate);
      }
    }
  }
  return used;
}

std::vector<Candidate> affordable(const std::vector<Candidate>& wanted,
                                  const std::vector<Candidate>& done, std::int64_t budget,
                                  const ModelSpec& parent, std::int64_t window) {
  const CandidateWork work(parent, window);
  std::set<std::string> known;
  for (const Candidate& candidate : done) {
    known.insert(candidate.key);
    budget -= work.of(candidate.layer);
  }
  std::vector<Candidate> taken;
  for (const Candidate& candidate : wanted) {
    const std::int64_t passes = work.of(candidate.layer);
    if (passes <= budget && known.insert(candidate.key).second) {
      budget -= passes;
      taken.push_back(candidate);
    }
  }
  return taken;
}

}  // namespace puzzle
