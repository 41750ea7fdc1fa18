#include "puzzle/report/estimate_figure.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/report/chart.h"
#include "puzzle/report/number.h"
#include "puzzle/report/page.h"

namespace puzzle {
namespace {

using BlockScores = std::map<std::pair<std::int64_t, std::string>, double>;

struct Compared {
  std::string name;
  std::vector<double> exact;
  std::vector<double> estimated;
};

BlockScores scores_of(const ReportData& data, const std::string& method,
                      const std::string& metric) {
  BlockScores scores;
  for (const ScoreRow& row : data.scores) {
    if (row.method == method && row.metric == metric) {
      scores.emplace(std::pair{row.layer, row.block}, row.value);
    }
  }
  return scores;
}

std::vector<Compared> compared_estimators(const ReportData& data) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kEstimators = {
      {{"kl_per_sequence", "per sequence"}, {"kl_per_token", "per token"}, {"kl", "combined"}}};
  const BlockScores exact = scores_of(data, "replace-one", "kl");
  std::vector<Compared> list;
  for (const auto& [metric, name] : kEstimators) {
    const BlockScores estimates = scores_of(data, "gradient", metric);
    Compared& compared = list.emplace_back(Compared{name, {}, {}});
    for (const auto& [block, score] : exact) {
      const auto found = estimates.find(block);
      if (found != estimates.end()) {
        compared.exact.push_back(score);
        compared.estimated.push_back(found->second);
      }
    }
  }
  return list;
}

std::vector<double> mean_ranks(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&values](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first;
    while (end < order.size() && values[order[end]] == values[order[first]]) {
      ++end;
    }
    for (std::size_t i = first; i < end; ++i) {
      ranks[order[i]] = static_cast<double>(first + end - 1) / 2;
    }
    first = end;
  }
  return ranks;
}

double median_ratio(const Compared& compared) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < compared.exact.size(); ++i) {
    if (compared.exact[i] > 0.0) {
      ratios.push_back(compared.estimated[i] / compared.exact[i]);
    }
  }
  if (ratios.empty()) {
    return std::nan("");
  }
  std::sort(ratios.begin(), ratios.end());
  return (ratios[(ratios.size() - 1) / 2] + ratios[ratios.size() / 2]) / 2;
}

std::string number_or_dash(double value) {
  return std::isfinite(value) ? format_significant(value) : "–";
}

std::string estimate_chart(const std::vector<Compared>& estimators) {
  XyChart chart;
  chart.text = {"scores-estimates", "Estimated against exact damage of the same blocks",
                "Points over the line are estimated too high, points under it too low."};
  chart.x = {.label = "exact: KL in nats per token", .log = true};
  chart.y = {.label = "estimated: KL in nats per token", .log = true};
  XySeries equal{.name = "equal", .colour = 3, .style = SeriesStyle::kLine, .points = {}};
  equal.look = LineLook::kFaint;
  for (std::size_t i = 0; i < estimators.size(); ++i) {
    XySeries series{
        .name = estimators[i].name, .colour = i, .style = SeriesStyle::kPoints, .points = {}};
    for (std::size_t j = 0; j < estimators[i].exact.size(); ++j) {
      series.points.push_back({.x = estimators[i].exact[j], .y = estimators[i].estimated[j]});
    }
    chart.series.push_back(std::move(series));
  }
  const auto [low, high] =
      std::minmax_element(estimators.front().exact.begin(), estimators.front().exact.end());
  equal.points = {{.x = *low, .y = *low}, {.x = *high, .y = *high}};
  chart.series.push_back(std::move(equal));
  return render_chart(chart);
}

}  // namespace

double rank_correlation(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size() || a.empty()) {
    fail(ErrorKind::kInternal, "rank_correlation of {} and {} values", a.size(), b.size());
  }
  const std::vector<double> ranks_a = mean_ranks(a);
  const std::vector<double> ranks_b = mean_ranks(b);
  const double mean = static_cast<double>(a.size() - 1) / 2;
  double together = 0.0;
  double squares_a = 0.0;
  double squares_b = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    together += (ranks_a[i] - mean) * (ranks_b[i] - mean);
    squares_a += std::pow(ranks_a[i] - mean, 2);
    squares_b += std::pow(ranks_b[i] - mean, 2);
  }
  return together / std::sqrt(squares_a * squares_b);
}

void add_estimate_figure(Markup& out, const ReportData& data) {
  const std::vector<Compared> estimators = compared_estimators(data);
  for (const Compared& compared : estimators) {
    if (compared.exact.size() < kFewestCompared) {
      return;
    }
  }
  out.raw(estimate_chart(estimators));
  std::vector<TableRow> rows;
  for (const Compared& compared : estimators) {
    rows.push_back({{compared.name, fmt::format("{}", compared.exact.size()),
                     number_or_dash(rank_correlation(compared.estimated, compared.exact)),
                     number_or_dash(median_ratio(compared))}});
  }
  add_table(out,
            {{"estimate", false},
             {"blocks"},
             {"Spearman's correlation"},
             {"median of estimated / exact"}},
            rows);
  out.element("p",
              "Method hybrid scores exactly what is doubtful (the first and the last layer, the "
              "most damaging, what changes the few giant states that a model may have) and what "
              "the search chooses, so these are the harder blocks.");
}

}  // namespace puzzle
