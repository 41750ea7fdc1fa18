// Scores of blocks from the rows of run.db: what the search minimises.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "puzzle/arch/model_spec.h"
#include "puzzle/results/rows.h"

namespace puzzle {

// Metrics that a search can add up; lower is better but for "top1".
[[nodiscard]] const std::vector<std::string>& score_metrics();

struct ScoreValue {
  double value = 0.0;
  double standard_error = 0.0;
};

class ScoreTable {
 public:
  // Rows of one of score_metrics(); "top1" is turned round to 1 - agreement. Throws Error(kUsage)
  // for another metric.
  ScoreTable(const std::vector<ScoreRow>& rows, const ModelSpec& parent, const std::string& metric);

  // Damage of a block in a layer: the exact score of that pair where there is one, else from its
  // halves' scores A and F (exact ones before estimates of method gradient, which are multiplied by
  // the factor of their kind): A + F (paper 3.1), and where the pair and its halves were
  // estimated A + F + 2 r √(A F), with the correlation r of the halves' effects that the three
  // estimates imply. The parent's own block is 0. Throws Error(kUsage) for a block whose halves
  // were not scored.
  [[nodiscard]] ScoreValue block(std::int64_t layer, const BlockSpec& block) const;

  // Exact score over estimate: the median over the variants of a kind that have both, outside the
  // first and the last layer; 1 for fewer than three of them. Second order misses more of what
  // attention does than of what an FFN does.
  struct Factors {
    double attention = 1.0;
    double ffn = 1.0;
  };
  [[nodiscard]] const Factors& factors() const { return factors_; }

 private:
  using Rows = std::map<std::pair<std::int64_t, BlockSpec>, ScoreValue>;

  [[nodiscard]] Factors find_factors() const;
  [[nodiscard]] ScoreValue half(std::int64_t layer, const BlockSpec& block) const;
  [[nodiscard]] double estimated_correlation(std::int64_t layer, const BlockSpec& block) const;

  Rows exact_;
  Rows estimated_;
  std::string metric_;
  Architecture parent_;
  Factors factors_;
};

}  // namespace puzzle
