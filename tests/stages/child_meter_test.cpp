#include "puzzle/stages/child_meter.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "stages/measured_run.h"

namespace puzzle {
namespace {

Architecture blocks_named(const std::vector<std::string>& names) {
  Architecture layers;
  for (const std::string& name : names) {
    layers.push_back(parse_block(name));
  }
  return layers;
}

// Σ KL of a window, the slow way: each document on its own where they must not see each other.
double naive_window_kl(const ModelWeights& parent, const ModelWeights& child,
                       const TokenBatch& batch) {
  const std::int64_t window = batch.tokens_BT.size(1);
  double sum = 0.0;
  std::int64_t first = 0;
  for (std::int64_t t = 1; t <= window; ++t) {
    const auto document = [&](std::int64_t at) { return batch.document_ids_BT[0][at].item<int>(); };
    if (t < window && (batch.cross_documents || document(t) == document(first))) {
      continue;
    }
    const at::Tensor tokens = batch.tokens_BT[0].slice(0, first, t);
    const at::Tensor p = test::naive_log_probs(parent, tokens);
    const at::Tensor q = test::naive_log_probs(child, tokens);
    for (std::int64_t i = 0; i < t - first; ++i) {
      for (std::int64_t v = 0; v < p.size(1); ++v) {
        const double log_p = p[i][v].item<double>();
        sum += std::exp(log_p) * (log_p - q[i][v].item<double>());
      }
    }
    first = t;
  }
  return sum;
}

// By unit of eight windows.
std::vector<double> naive_units(const test::MeasuredRun& run, const Architecture& layers) {
  const TokenPart& part = *run.validation;
  std::vector<double> sums(static_cast<std::size_t>((part.num_windows() + 7) / 8));
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    sums[static_cast<std::size_t>(w / 8)] +=
        naive_window_kl(run.parent.weights, run.by_hand(layers), part.slice(w, 1));
  }
  return sums;
}

const std::vector<std::vector<std::string>> kChildren = {{"kv4/w96", "kv4/w96", "linear/w64"},
                                                         {"kv2/w64", "none/w32", "kv4/linear"},
                                                         {"kv2/w64", "none/w32", "none/none"},
                                                         {"kv4/w96", "kv4/w96", "kv4/w96"},
                                                         {"none/none", "none/w32", "kv4/linear"}};

void expect_sums(const std::vector<std::vector<double>>& expected, ChildMeter& meter) {
  std::vector<Architecture> children;
  for (const auto& names : kChildren) {
    children.push_back(blocks_named(names));
  }
  for (const Architecture& base : children) {
    meter.set_base(base);
    const auto sums = meter.unit_sums(children);
    ASSERT_EQ(sums.size(), children.size());
    for (std::size_t c = 0; c < children.size(); ++c) {
      ASSERT_EQ(sums[c].size(), expected[c].size());
      for (std::size_t u = 0; u < expected[c].size(); ++u) {
        EXPECT_NEAR(sums[c][u], expected[c][u], 2e-3) << "child " << c << " unit " << u;
      }
    }
  }
}

TEST(ChildMeter, AnyBaseGivesWhatAPassThroughTheWholeChildGives) {
  for (const bool cross_documents : {true, false}) {
    const test::MeasuredRun run(3, cross_documents);
    std::vector<std::vector<double>> expected;
    for (const auto& names : kChildren) {
      expected.push_back(naive_units(run, blocks_named(names)));
    }
    for (const std::int64_t state_bytes : {std::int64_t{1}, std::int64_t{1} << 30U}) {
      ChildMeter meter(run.parent, run.library.folder, *run.validation, {},
                       {.batch_windows = 5, .state_bytes = state_bytes});
      EXPECT_EQ(meter.units().count, 2);
      expect_sums(expected, meter);
    }
    EXPECT_GT(expected[1][0], 10.0);  // children that differ
  }
}

TEST(ChildMeter, SharesOfRanksAddUp) {
  const test::MeasuredRun run;
  const Architecture child = blocks_named(kChildren[1]);
  std::vector<double> sums(2);
  for (int rank = 0; rank < 5; ++rank) {
    const ChildMeter meter(run.parent, run.library.folder, *run.validation, {rank, 5}, {});
    const auto mine = meter.unit_sums({child});
    sums[0] += mine[0][0];
    sums[1] += mine[0][1];
  }
  const std::vector<double> expected = naive_units(run, child);
  EXPECT_NEAR(sums[0], expected[0], 2e-3);
  EXPECT_NEAR(sums[1], expected[1], 2e-3);
}

}  // namespace
}  // namespace puzzle
