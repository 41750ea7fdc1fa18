#include "puzzle/stages/score_hybrid.h"

#include <algorithm>
#include <map>
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
  using Values = std::map<std::pair<std::int64_t, std::string>, double>;
  Values value, giant_change;
  for (const ScoreRow& row : estimates) {
    if (row.method == "gradient" && (row.metric == "kl" || row.metric == "giant_change")) {
      (row.metric == "kl" ? value : giant_change)[{row.layer, row.block}] = row.value;
    }
  }
  struct Doubt {
    int rank = 0;
    double estimate = 0.0;
    const Candidate* candidate = nullptr;
  };
  std::vector<Doubt> doubts;
  for (const auto& layer : candidates) {
    std::vector<Doubt> attention, ffn;  // estimates that seem fine
    for (const Candidate& candidate : layer) {
      const std::pair name(candidate.layer, candidate.block.name());
      const double estimate = value.at(name);
      const auto doubt = [&](int rank) { doubts.push_back({rank, estimate, &candidate}); };
      if (is_whole_block(candidate, parent)) {
        doubt(0);
      } else if (candidate.layer == 0) {
        doubt(1);
      } else if (candidate.layer + 1 == parent.num_layers()) {
        doubt(2);
      } else if (giant_change.at(name) > options.exact_giants) {
        doubt(4);
      } else if (estimate > options.exact_above) {
        doubt(5);
      } else {
        (is_attention_variant(candidate, parent) ? attention : ffn)
            .push_back({3, estimate, &candidate});
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
    return std::pair(a.rank, a.estimate) < std::pair(b.rank, b.estimate);
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
