// A run with a made library, and what its models say computed the slow way: whole models, whole
// vocabularies, loops over fp64 numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/model/decoder.h"
#include "stages/library_run.h"

namespace puzzle::test {

struct ScoredRun : LibraryRun {
  explicit ScoredRun(bool cross_documents = true) : LibraryRun(library_spec(), cross_documents) {
    library = make({});
  }
  // The parent with one block replaced.
  [[nodiscard]] ModelWeights replaced(std::int64_t layer, const BlockSpec& block) const {
    Architecture layers = parent.weights.spec.layers;
    layers[static_cast<std::size_t>(layer)] = block;
    return by_hand(library, layers);
  }

  InitLibraryResult library;
};

using ScoreName = std::tuple<std::int64_t, std::string, std::string>;  // layer, block, metric

inline std::map<ScoreName, ScoreRow> scores_by_name(const std::vector<ScoreRow>& rows) {
  std::map<ScoreName, ScoreRow> named;
  for (const ScoreRow& row : rows) {
    named[{row.layer, row.block, row.metric}] = row;
  }
  return named;
}

// log p of every token at every position of one window, [T, V] fp64, by the formula.
inline at::Tensor naive_log_probs(const ModelWeights& model, const at::Tensor& tokens_T) {
  const c10::NoGradGuard no_grad;
  const Geometry geometry(model.spec);
  const at::Tensor logits =
      forward_logits(model, geometry, tokens_T.unsqueeze(0))[0].to(at::kDouble).contiguous();
  at::Tensor result = at::empty_like(logits);
  const auto in = logits.accessor<double, 2>();
  auto out = result.accessor<double, 2>();
  for (std::int64_t t = 0; t < logits.size(0); ++t) {
    double sum = 0.0;
    for (std::int64_t v = 0; v < logits.size(1); ++v) {
      sum += std::exp(in[t][v]);
    }
    for (std::int64_t v = 0; v < logits.size(1); ++v) {
      out[t][v] = in[t][v] - std::log(sum);
    }
  }
  return result;
}

// Per window of a part: sums over its tokens, by loops.
struct NaiveWindow {
  double kl = 0.0;
  double top1 = 0.0;
  double nll = 0.0;
  double parent_nll = 0.0;
  double labels = 0.0;
};

inline std::vector<NaiveWindow> naive_windows(const ModelWeights& parent, const ModelWeights& child,
                                              const TokenPart& part) {
  std::vector<NaiveWindow> windows;
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    const TokenBatch batch = part.slice(w, 1);
    const at::Tensor p = naive_log_probs(parent, batch.tokens_BT[0]);
    const at::Tensor q = naive_log_probs(child, batch.tokens_BT[0]);
    const auto p_at = p.accessor<double, 2>();
    const auto q_at = q.accessor<double, 2>();
    NaiveWindow sums;
    for (std::int64_t t = 0; t < p.size(0); ++t) {
      std::int64_t p_top = 0;
      std::int64_t q_top = 0;
      for (std::int64_t v = 0; v < p.size(1); ++v) {
        sums.kl += std::exp(p_at[t][v]) * (p_at[t][v] - q_at[t][v]);
        p_top = p_at[t][v] > p_at[t][p_top] ? v : p_top;
        q_top = q_at[t][v] > q_at[t][q_top] ? v : q_top;
      }
      sums.top1 += p_top == q_top ? 1.0 : 0.0;
      if (t + 1 < p.size(0)) {
        const auto next = batch.tokens_BT[0][t + 1].item<std::int64_t>();
        sums.nll -= q_at[t][next];
        sums.parent_nll -= p_at[t][next];
        sums.labels += 1.0;
      }
    }
    windows.push_back(sums);
  }
  return windows;
}

inline double naive_kl(const ModelWeights& parent, const ModelWeights& child,
                       const TokenPart& part) {
  double sum = 0.0;
  for (const NaiveWindow& window : naive_windows(parent, child, part)) {
    sum += window.kl;
  }
  return sum / static_cast<double>(part.num_tokens());
}

// Σ value / Σ tokens over windows and its standard error, where each run of 8 neighbouring windows
// is one unit, as all windows of LibraryRun::validation are neighbours.
template <class Value>
std::pair<double, double> naive_ratio(const std::vector<NaiveWindow>& windows, Value value,
                                      double tokens_per_window) {
  double sum = 0.0;
  for (const NaiveWindow& window : windows) {
    sum += value(window);
  }
  const double tokens = tokens_per_window * static_cast<double>(windows.size());
  const double ratio = sum / tokens;
  double square = 0.0;
  double units = 0.0;
  for (std::size_t first = 0; first < windows.size(); first += 8) {
    double residual = 0.0;
    for (std::size_t w = first; w < std::min(first + 8, windows.size()); ++w) {
      residual += value(windows[w]) - ratio * tokens_per_window;
    }
    square += residual * residual;
    units += 1.0;
  }
  return {ratio, std::sqrt(square * units / (units - 1.0)) / tokens};
}

}  // namespace puzzle::test
