// How far the estimates of one backward pass hold: beside the exact scores of the same blocks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/report/markup.h"
#include "puzzle/report/report_data.h"

namespace puzzle {

// The per-sequence, the per-token and the combined estimate (method "gradient",
// stages/score_gradient.h) over the exact KL (method "replace-one"), and a table of rank
// correlations and ratios. Nothing where fewer than kFewestCompared blocks have both.
void add_estimate_figure(Markup& out, const ReportData& data);

constexpr std::size_t kFewestCompared = 5;

// Spearman's rank correlation; equal values share their mean rank. NaN where all of one side are
// equal. Throws Error(kInternal) unless the two are as long and not empty.
[[nodiscard]] double rank_correlation(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace puzzle
