#include "puzzle/stages/score_table.h"

#include <algorithm>
#include <cmath>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

constexpr const char* kAgreement = "top1";
constexpr std::size_t kLeastForAFactor = 3;

double median_factor(std::vector<double> ratios) {
  if (ratios.size() < kLeastForAFactor) {
    return 1.0;
  }
  std::sort(ratios.begin(), ratios.end());
  return std::sqrt(ratios[(ratios.size() - 1) / 2] * ratios[ratios.size() / 2]);
}

}  // namespace

const std::vector<std::string>& score_metrics() {
  static const std::vector<std::string> kMetrics = {"kl", "lm_loss", kAgreement, "downstream"};
  return kMetrics;
}

ScoreTable::ScoreTable(const std::vector<ScoreRow>& rows, const ModelSpec& parent,
                       const std::string& metric)
    : metric_(metric), parent_(parent.layers) {
  const std::vector<std::string>& known = score_metrics();
  if (std::find(known.begin(), known.end(), metric) == known.end()) {
    fail(ErrorKind::kUsage, "score metric '{}': expected one of {}", metric, join(known, ", "));
  }
  for (const ScoreRow& row : rows) {
    if (row.metric == metric) {
      const double value = metric == kAgreement ? 1.0 - row.value : row.value;
      Rows& target = row.method == "gradient" ? estimated_ : exact_;
      target[{row.layer, parse_block(row.block)}] = {value, row.standard_error};
    }
  }
  factors_ = find_factors();
}

ScoreTable::Factors ScoreTable::find_factors() const {
  std::vector<double> attention;
  std::vector<double> ffn;
  for (const auto& [name, estimate] : estimated_) {
    const auto& [layer, block] = name;
    const BlockSpec& own = parent_.at(static_cast<std::size_t>(layer));
    const bool is_half = block.attention == own.attention || block.ffn == own.ffn;
    const auto exact = exact_.find(name);
    if (is_half && layer > 0 && layer + 1 < std::ssize(parent_) && exact != exact_.end() &&
        estimate.value > 0.0 && exact->second.value > 0.0) {
      (block.ffn == own.ffn ? attention : ffn).push_back(exact->second.value / estimate.value);
    }
  }
  return {median_factor(attention), median_factor(ffn)};
}

ScoreValue ScoreTable::block(std::int64_t layer, const BlockSpec& block) const {
  const BlockSpec& own = parent_.at(static_cast<std::size_t>(layer));
  if (block == own) {
    return {};
  }
  if (const auto exact = exact_.find({layer, block}); exact != exact_.end()) {
    return exact->second;
  }
  if (block.ffn == own.ffn || block.attention == own.attention) {
    return half(layer, block);
  }
  const ScoreValue attention = half(layer, {block.attention, own.ffn});
  const ScoreValue ffn = half(layer, {own.attention, block.ffn});
  const double common = estimated_correlation(layer, block);
  return {attention.value + ffn.value +
              2.0 * common * std::sqrt(std::max(0.0, attention.value * ffn.value)),
          std::hypot(attention.standard_error, ffn.standard_error)};
}

ScoreValue ScoreTable::half(std::int64_t layer, const BlockSpec& block) const {
  if (const auto found = exact_.find({layer, block}); found != exact_.end()) {
    return found->second;
  }
  if (const auto found = estimated_.find({layer, block}); found != estimated_.end()) {
    const bool is_attention = block.ffn == parent_.at(static_cast<std::size_t>(layer)).ffn;
    const double factor = is_attention ? factors_.attention : factors_.ffn;
    return {found->second.value * factor, found->second.standard_error * factor};
  }
  fail(ErrorKind::kUsage,
       "score: layer {} has no {} score for {}; run `puzzle score` with the same search space and "
       "the score.method that gives this metric",
       layer, metric_, block.name());
}

// 0 where nothing was estimated.
double ScoreTable::estimated_correlation(std::int64_t layer, const BlockSpec& block) const {
  const BlockSpec& own = parent_.at(static_cast<std::size_t>(layer));
  const auto pair = estimated_.find({layer, block});
  const auto attention = estimated_.find({layer, {block.attention, own.ffn}});
  const auto ffn = estimated_.find({layer, {own.attention, block.ffn}});
  if (pair == estimated_.end() || attention == estimated_.end() || ffn == estimated_.end()) {
    return 0.0;
  }
  const double a = attention->second.value;
  const double f = ffn->second.value;
  return a * f > 0.0
             ? std::clamp((pair->second.value - a - f) / (2.0 * std::sqrt(a * f)), -1.0, 1.0)
             : 0.0;
}

}  // namespace puzzle
