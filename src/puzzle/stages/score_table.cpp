#include "puzzle/stages/score_table.h"

#include <cmath>

#include "puzzle/base/error.h"

namespace puzzle {

ScoreTable::ScoreTable(const std::vector<ScoreRow>& rows, const ModelSpec& parent,
                       const std::string& metric)
    : metric_(metric), parent_(parent.layers) {
  if (metric != "kl" && metric != "lm_loss" && metric != "top1" && metric != "downstream") {
    fail(ErrorKind::kUsage, "score metric '{}': expected kl, lm_loss, top1 or downstream", metric);
  }
  for (const ScoreRow& row : rows) {
    if (row.metric == metric) {
      const double value = metric == "top1" ? 1.0 - row.value : row.value;
      rows_[{row.layer, parse_block(row.block)}] = {value, row.standard_error};
    }
  }
}

ScoreValue ScoreTable::block(std::int64_t layer, const BlockSpec& block) const {
  const BlockSpec& own = parent_.at(static_cast<std::size_t>(layer));
  if (block == own) {
    return {};
  }
  if (const auto exact = rows_.find({layer, block}); exact != rows_.end()) {
    return exact->second;
  }
  ScoreValue sum;
  for (const BlockSpec& half :
       {BlockSpec{block.attention, own.ffn}, BlockSpec{own.attention, block.ffn}}) {
    if (half == own) {
      continue;
    }
    const auto found = rows_.find({layer, half});
    if (found == rows_.end()) {
      fail(ErrorKind::kUsage,
           "score: layer {} has no {} score for {}; run `puzzle score` with the same search space "
           "and the score.method that gives this metric",
           layer, metric_, half.name());
    }
    sum.value += found->second.value;
    sum.standard_error = std::hypot(sum.standard_error, found->second.standard_error);
  }
  return sum;
}

}  // namespace puzzle
