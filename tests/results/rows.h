// Rows with a value in every field, for the tests of this layer.
#pragma once

#include <vector>

#include "puzzle/results/run_db.h"

namespace puzzle::test {

inline ScoreRow score_row(const std::string& key, std::int64_t layer, const std::string& block,
                          double value) {
  return {.key = key,
          .layer = layer,
          .block = block,
          .method = "replace-one",
          .metric = "kl",
          .value = value,
          .standard_error = value / 16,
          .tokens = 1024};
}

inline CostRow cost_row(const std::string& key, const std::string& subblock, double seconds) {
  return {.key = key,
          .engine = "llama-server",
          .subblock = subblock,
          .phase = "generate",
          .batch = 4,
          .context = 256,
          .seconds = seconds,
          .p10_s = seconds * 0.9,
          .p90_s = seconds * 1.2,
          .samples = 7,
          .detail_json = R"({"stack": 10})"};
}

// One row in every table, under the keys "a", "b", ….
inline void fill(RunDb& db) {
  db.put(StageRecord{.key = "a",
                     .stage = "score",
                     .what = "layer 0",
                     .seconds = 12.5,
                     .finished_at = "2026-10-31T12:00:00Z",
                     .detail_json = R"({"tokens": 1024, "forward_s": 3.5})"});
  db.put_one(score_row("b", 1, "kv3/w768", 0.125));
  db.put_one(cost_row("c", "attention/kv1", 0.001));
  db.put_one(CurveRow{.key = "d",
                      .stage = "distill-child",
                      .series = "child",
                      .metric = "kl",
                      .step = 20,
                      .tokens = 40960,
                      .value = 0.5});
  db.put_one(ArchitectureRow{.key = "e",
                             .name = "child",
                             .method = "mip",
                             .solution = 1,
                             .blocks = {"kv3/w768", "none/linear"},
                             .objective = 0.75,
                             .costs_json = R"({"parameters": 1000, "total_s": 1.5})",
                             .budget = "total_s <= 2",
                             .gap = 1e-7,
                             .detail_json = R"({"batch": 2, "solve_s": 0.25})"});
  db.put_one(VariantRow{.key = "f",
                        .layer = 1,
                        .variant = "ffn/w768",
                        .stage = "distill-blocks",
                        .init = "least-squares",
                        .error_before = 0.25,
                        .error_after = 0.125,
                        .loss_before = 0.5,
                        .loss_after = std::nullopt,
                        .tokens = 16384,
                        .kept = "after"});
  db.put_one(ModelRow{.key = "g",
                      .name = "child",
                      .role = "child",
                      .label = "Our child",
                      .architecture = "child",
                      .parameters = 1000,
                      .weight_bytes = 4000,
                      .file_bytes = std::nullopt,
                      .kv_bytes_per_token = 64,
                      .detail_json = "{}"});
  db.put_one(EvaluationRow{.key = "h",
                           .model = "child",
                           .task = "blimp",
                           .metric = "accuracy",
                           .value = 0.75,
                           .standard_error = 0.0625,
                           .count = 48});
  db.put_one(ThroughputRow{.key = "i",
                           .model = "child",
                           .engine = "llama-server",
                           .batch = 1,
                           .prompt_tokens = 128,
                           .generated_tokens = 64,
                           .predicted_prefill_s = 0.5,
                           .measured_prefill_s = 0.625,
                           .predicted_generation_per_s = 160.0,
                           .measured_generation_per_s = std::nullopt,
                           .prefill_p10_s = 0.5,
                           .prefill_p90_s = 0.75,
                           .generation_p10_per_s = std::nullopt,
                           .generation_p90_per_s = std::nullopt,
                           .samples = 5});
  db.put_meta("version", "0.1.0");
  db.put_meta("started_at", "2026-10-31T11:00:00Z");
}

}  // namespace puzzle::test
