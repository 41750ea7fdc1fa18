// A small parent, its search space, made-up scores and times that can be worked out by hand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/toy_tokenizer.h"
#include "puzzle/arch/search_space.h"
#include "puzzle/engine/measured_cost.h"
#include "puzzle/results/rows.h"
#include "stages/made_up_scores.h"
#include "support/tiny_model.h"

namespace puzzle::test {

struct SearchCase {
  SearchCase() {
    spec.vocab_size = kToyVocabSize;
    SearchSpaceOptions options;
    options.attention = {"parent", "kv1", "linear", "none"};
    options.ffn = {"parent", "0.34", "linear", "none"};
    space = make_search_space(options, spec);
    rows = made_up_scores(space.layers[0], spec.layers[0], spec.num_layers(), 5);
    for (const std::int64_t batch : {1, 2, 4}) {
      const auto measured = [&](const std::string& name, double seconds) {
        costs.push_back({name, Phase::kGenerate, batch, 24, seconds, seconds, seconds, 3});
        costs.push_back(
            {name, Phase::kPrefill, batch, 24, 10 * seconds, 10 * seconds, 10 * seconds, 3});
      };
      for (const AttentionSpec& attention : space.layers[0].attention) {
        measured(subblock_name(attention), seconds_of(attention, batch));
      }
      for (const FfnSpec& ffn : space.layers[0].ffn) {
        measured(subblock_name(ffn), seconds_of(ffn, batch));
      }
      measured("fixed", kFixedSeconds);
    }
  }

  // Seconds of one step at any context; a prompt of 24 tokens takes ten times as long.
  static constexpr double kFixedSeconds = 0.002;
  [[nodiscard]] static double seconds_of(const AttentionSpec& attention, std::int64_t batch) {
    const double one = attention.kind == AttentionKind::kGqa
                           ? 0.001 + 0.0005 * static_cast<double>(attention.kv_heads)
                           : (attention.kind == AttentionKind::kLinear ? 0.0007 : 0.0);
    return one * (0.75 + 0.25 * static_cast<double>(batch));
  }
  [[nodiscard]] static double seconds_of(const FfnSpec& ffn, std::int64_t batch) {
    const double one = ffn.kind == FfnKind::kSwiglu ? 0.00003 * static_cast<double>(ffn.width)
                                                    : (ffn.kind == FfnKind::kLinear ? 0.0008 : 0.0);
    return one * (0.75 + 0.25 * static_cast<double>(batch));
  }
  [[nodiscard]] static double step_seconds(const Architecture& layers, std::int64_t batch) {
    double sum = kFixedSeconds;
    for (const BlockSpec& block : layers) {
      sum += seconds_of(block.attention, batch) + seconds_of(block.ffn, batch);
    }
    return sum;
  }

  ModelSpec spec = tiny_spec(3);
  SearchSpace space;
  std::vector<ScoreRow> rows;
  std::vector<MeasuredCost> costs;
};

}  // namespace puzzle::test
