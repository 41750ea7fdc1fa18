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

struct ScoreValue {
  double value = 0.0;
  double standard_error = 0.0;
};

class ScoreTable {
 public:
  // Rows of one metric ("kl", "lm_loss" or "downstream": lower is better; "top1" is turned round to
  // 1 - agreement). Throws Error(kUsage) for another metric.
  ScoreTable(const std::vector<ScoreRow>& rows, const ModelSpec& parent, const std::string& metric);

  // Damage of a block in a layer: the exact score of that pair where there is one, else the sum of
  // its halves' scores (DESIGN 5; paper 3.1). The parent's own block is 0. Throws Error(kUsage) for
  // a block whose halves were not scored.
  [[nodiscard]] ScoreValue block(std::int64_t layer, const BlockSpec& block) const;

 private:
  std::map<std::pair<std::int64_t, BlockSpec>, ScoreValue> rows_;
  std::string metric_;
  Architecture parent_;
};

}  // namespace puzzle
