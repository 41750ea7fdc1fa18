// Exact KL scores of every half of a search space, made up: the same on every machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/arch/search_space.h"
#include "puzzle/results/rows.h"

namespace puzzle::test {

// All layers with the own block and the variants of layer 0; values in [0.01, 1.01).
inline std::vector<ScoreRow> made_up_scores(const LayerSpace& space, const BlockSpec& own,
                                            std::int64_t num_layers, std::uint32_t state) {
  std::vector<ScoreRow> rows;
  for (std::int64_t layer = 0; layer < num_layers; ++layer) {
    const auto add = [&](const BlockSpec& block) {
      state = state * 1664525U + 1013904223U;
      if (block == own) {
        return;
      }
      rows.push_back({.key = "score" + std::to_string(rows.size()),
                      .layer = layer,
                      .block = block.name(),
                      .method = "replace-one",
                      .metric = "kl",
                      .value = 0.01 + static_cast<double>(state >> 8U) / 16777216.0,
                      .standard_error = 0.001,
                      .tokens = 100});
    };
    for (const AttentionSpec& attention : space.attention) {
      add({attention, own.ffn});
    }
    for (const FfnSpec& ffn : space.ffn) {
      add({own.attention, ffn});
    }
  }
  return rows;
}

}  // namespace puzzle::test
