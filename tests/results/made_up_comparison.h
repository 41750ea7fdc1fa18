// Three cells as `puzzle compare` leaves them: two children and a recipe that no child satisfies.
#pragma once

#include "puzzle/results/comparison.h"

namespace puzzle::test {

// KL 15/40 for "ours", twice that for "other".
inline Comparison made_up_comparison() {
  ComparedCell ours{.name = "ours",
                    .settings = "seed=1",
                    .budget = "parameters <= 0.8x",
                    .folder = "children/ours"};
  ours.key = "key of ours";
  ours.kl_sums = {4.0, 9.0, 2.0};
  ours.unit_tokens = {10.0, 20.0, 10.0};
  ours.parameters = 0.75;
  ours.used = {{"parameters", 0.76}, {"generation_s", 0.5}};
  ours.metrics = {{"held-out text/perplexity", 12.5}, {"held-out text/kl", 0.375}};
  ours.parent_metrics = {{"held-out text/perplexity", 10.5}};
  ours.made_by = "this build";
  ours.predicted = 0.5;
  ours.seconds = 7.0;
  ComparedCell other{.name = "other", .reference = "ours", .settings = "seed=1"};
  other.key = "key of other";
  other.kl_sums = {9.0, 17.0, 4.0};
  other.unit_tokens = ours.unit_tokens;
  other.made_by = "another build";
  return {.name = "made-up",
          .title = "Made up",
          .about = "Three cells.",
          .settings = "threads=2",
          .reference = "ours",
          .cells = {ours, other, {.name = "none"}}};
}

}  // namespace puzzle::test
