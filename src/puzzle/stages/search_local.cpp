#include "puzzle/stages/search_local.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"

namespace puzzle {
namespace {

constexpr double kDoubt = 0.25;  // of a predicted change's size

struct LayerSwap {
  std::size_t layer = 0;
  std::size_t choice = 0;
  double change = 0.0;  // predicted
};

// One or two of them.
struct Swap {
  std::vector<LayerSwap> parts;

  [[nodiscard]] double change() const {
    double sum = 0.0;
    for (const LayerSwap& part : parts) {
      sum += part.change;
    }
    return sum;
  }
};

double rank_of(double change, double squares) { return change - kDoubt * std::sqrt(squares); }

class LocalSearch {
 public:
  LocalSearch(const Problem& problem, const Assignment& start)
      : problem_(problem), scores_(problem), current_(start), tried_{start} {}

  // The best one not tried yet.
  [[nodiscard]] std::optional<Swap> next() const {
    const std::vector<LayerSwap> parts = layer_swaps();
    const std::vector<double> costs = evaluate(problem_, current_).costs;
    double best_rank = std::numeric_limits<double>::infinity();
    std::optional<Swap> best;
    const auto consider = [&](double change, double squares, const LayerSwap& a,
                              const LayerSwap* b) {
      const double rank = rank_of(change, squares);
      if (rank < best_rank && within_budgets(costs, a, b)) {
        Swap swap{b == nullptr ? std::vector{a} : std::vector{a, *b}};
        if (is_new(swap)) {
          best_rank = rank;
          best = std::move(swap);
        }
      }
    };
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const LayerSwap& a = parts[i];
      consider(a.change, a.change * a.change, a, nullptr);
      for (std::size_t j = 0; j < i; ++j) {
        const LayerSwap& b = parts[j];
        if (b.layer != a.layer && std::min(a.change, b.change) < 0.0) {
          consider(a.change + b.change, a.change * a.change + b.change * b.change, a, &b);
        }
      }
    }
    return best;
  }

  [[nodiscard]] Assignment after(const Swap& swap) const {
    Assignment child = current_;
    for (const LayerSwap& part : swap.parts) {
      child[part.layer] = part.choice;
    }
    return child;
  }

  // `change`: measured.
  void learn(const Swap& swap, double change, bool accepted) {
    const double surprise = (change - swap.change()) / static_cast<double>(swap.parts.size());
    for (const LayerSwap& part : swap.parts) {
      scores_.layers[part.layer][part.choice].score += surprise;
    }
    tried_.insert(after(swap));
    if (accepted) {
      current_ = after(swap);
    }
  }

  [[nodiscard]] const Assignment& current() const { return current_; }

 private:
  [[nodiscard]] std::vector<LayerSwap> layer_swaps() const {
    std::vector<LayerSwap> swaps;
    for (std::size_t layer = 0; layer < current_.size(); ++layer) {
      const std::vector<Choice>& choices = scores_.layers[layer];
      for (std::size_t c = 0; c < choices.size(); ++c) {
        if (c != current_[layer]) {
          swaps.push_back({layer, c, choices[c].score - choices[current_[layer]].score});
        }
      }
    }
    return swaps;
  }

  [[nodiscard]] double cost_change(const LayerSwap& swap, std::size_t cost) const {
    const std::vector<Choice>& choices = problem_.layers[swap.layer];
    return choices[swap.choice].costs[cost] - choices[current_[swap.layer]].costs[cost];
  }

  // A quick test; is_new() has the last word.
  [[nodiscard]] bool within_budgets(const std::vector<double>& costs, const LayerSwap& a,
                                    const LayerSwap* b) const {
    return std::all_of(problem_.budgets.begin(), problem_.budgets.end(), [&](const Budget& budget) {
      const std::size_t k = cost_index(problem_, budget.cost);
      const double sum = costs[k] + cost_change(a, k) + (b == nullptr ? 0.0 : cost_change(*b, k));
      const double doubt = 1e-9 * std::abs(sum);
      return (!budget.at_most || sum - doubt <= *budget.at_most) &&
             (!budget.at_least || sum + doubt >= *budget.at_least);
    });
  }

  [[nodiscard]] bool is_new(const Swap& swap) const {
    const Assignment child = after(swap);
    return !tried_.contains(child) && is_feasible(problem_, child);
  }

  const Problem& problem_;
  Problem scores_;  // as corrected by what was measured
  Assignment current_;
  std::set<Assignment> tried_;
};

}  // namespace

LocalResult search_locally(const Problem& problem, const Assignment& start,
                           const MeasuredKl& start_kl, std::int64_t forwards,
                           const MeasureChild& measure) {
  LocalSearch local(problem, start);
  LocalResult result{.choices = start, .kl = start_kl};
  Progress progress("search: local", forwards, "children");
  while (result.num_measured < forwards) {
    const std::optional<Swap> swap = local.next();
    if (!swap) {
      break;
    }
    const Assignment child = local.after(*swap);
    MeasuredKl kl = measure(child, local.current());
    ++result.num_measured;
    const double change = kl.minus(result.kl).value;
    local.learn(*swap, change, change < 0.0);
    log_debug("search: a swap of {} layers, predicted {:+.4f} nats: {:+.4f}", swap->parts.size(),
              swap->change(), change);
    if (change < 0.0) {
      ++result.num_accepted;
      result.choices = child;
      result.kl = std::move(kl);
    }
    progress.advance();
  }
  return result;
}

}  // namespace puzzle
