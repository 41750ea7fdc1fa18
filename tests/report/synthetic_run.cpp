#include "report/synthetic_run.h"

#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "puzzle/base/hash.h"
#include "puzzle/results/facts.h"

namespace puzzle::test {
namespace {

// In [0, 1), the same for the same words.
double noise(const std::string& words) {
  return static_cast<double>(derive_seed(7, words) >> 11) / 9007199254740992.0;
}

// Layers in the middle matter less than the first and last ones.
double layer_weight(std::int64_t layer, std::int64_t num_layers) {
  const double x = static_cast<double>(layer) / static_cast<double>(num_layers - 1);
  return 0.25 + 3.0 * std::pow(2.0 * x - 1.0, 4) + 0.5 * noise(fmt::format("layer {}", layer));
}

struct Variant {
  std::string name;
  double damage;
  double cost;  // share of a layer's parameters
};

struct Space {
  std::vector<Variant> attention;
  std::vector<Variant> ffn;
};

Space make_space(bool is_long) {
  if (!is_long) {
    return {{{"kv1", 0.02, 0.2}, {"none", 0.06, 0.0}}, {{"w768", 0.03, 0.4}, {"linear", 0.1, 0.1}}};
  }
  return {{{"kv1", 0.015, 0.21}, {"linear", 0.04, 0.094}, {"none", 0.06, 0.0}},
          {{"w1152", 0.006, 0.56},
           {"w768", 0.021, 0.375},
           {"w384", 0.055, 0.19},
           {"w160", 0.085, 0.08},
           {"linear", 0.11, 0.094},
           {"none", 0.2, 0.0}}};
}

std::string pick(const std::vector<Variant>& variants, const std::string& own, double damage,
                 double limit) {
  std::string best = own;
  for (const Variant& variant : variants) {
    if (variant.damage * damage < limit) {
      best = variant.name;
    }
  }
  return best;
}

std::vector<std::string> choose_blocks(const SyntheticRun& run, double limit) {
  const Space space = make_space(run.is_long);
  std::vector<std::string> blocks;
  for (std::int64_t layer = 0; layer < run.num_layers; ++layer) {
    const double weight = layer_weight(layer, run.num_layers);
    blocks.push_back(
        pick(space.attention, "kv3", weight * (0.4 + noise(fmt::format("a{}", layer))), limit) +
        "/" + pick(space.ffn, "w1536", weight * (0.4 + noise(fmt::format("f{}", layer))), limit));
  }
  return blocks;
}

void add_facts(RunDb& db, const SyntheticRun& run) {
  ParentFacts parent;
  parent.name = "Example-135M-Instruct";
  parent.license = "apache-2.0";
  parent.weights_key = "8f14e45fceea167a5a36dedd4bea2543";
  parent.parameters = 134'515'008;
  parent.file_bytes = 98'600'000;
  parent.hidden_size = 576;
  parent.num_heads = 9;
  parent.head_dim = 64;
  parent.vocab_size = 49152;
  parent.blocks.assign(static_cast<std::size_t>(run.num_layers),
                       {AttentionSpec::gqa(3), FfnSpec::swiglu(1536)});
  put_parent(db, parent);
  put_machine(db, {"Example CPU <2 cores> @ 2.6 GHz", 2, 16LL << 30, "Debian GNU/Linux 12",
                   "Linux 6.1.0 x86_64"});
  put_facts(db, {"0.1.0", "g++ 12.2, torch 2.13.0, HiGHS 1.12",
                 "seed: 1\nscore:\n  method: \"replace-one\"\n  num_tokens: 1024\nsearch:\n"
                 "  budgets: [\"generation >= 1.3x\", \"file <= 0.8x\"]  # a & b\n",
                 1, "puzzle run recipes/example.yaml"});
}

void add_scores(RunDb& db, const SyntheticRun& run) {
  const Space space = make_space(run.is_long);
  std::vector<ScoreRow> rows;
  const auto add = [&](std::int64_t layer, const std::string& block, double damage) {
    const double value = damage * layer_weight(layer, run.num_layers) *
                         (0.6 + noise(fmt::format("{}{}", layer, block)));
    rows.push_back({.key = fmt::format("score {} {}", layer, block),
                    .layer = layer,
                    .block = block,
                    .method = "replace-one",
                    .metric = "kl",
                    .value = value,
                    .standard_error = 0.06 * value,
                    .tokens = 1024});
  };
  for (std::int64_t layer = 0; layer < run.num_layers; ++layer) {
    for (const Variant& variant : space.attention) {
      add(layer, variant.name + "/w1536", variant.damage);
    }
    for (const Variant& variant : space.ffn) {
      add(layer, "kv3/" + variant.name, variant.damage);
    }
  }
  add(1, "kv1/" + space.ffn.front().name, 0.05);
  db.put(rows);
}

ArchitectureRow architecture(const SyntheticRun& run, const std::string& name,
                             const std::string& method, double speed, double objective) {
  return {
      .key = "search " + name,
      .name = name,
      .method = method,
      .blocks = choose_blocks(run, 0.012 + 0.05 * (speed - 1.0)),
      .objective = objective,
      .costs_json = fmt::format(
          R"({{"generation_tokens_per_s": {:.1f}, "file_bytes": {:.0f}, "parameters": {:.0f}}})",
          139.0 * speed, 98.6e6 / std::pow(speed, 0.8), 134.5e6 / std::pow(speed, 0.9)),
      .budget = "generation tokens/s ≥ 1.3 × parent, file ≤ 0.8 × parent",
      .gap = method == "mip" ? 4e-7 : 0.0};
}

void add_architectures(RunDb& db, const SyntheticRun& run) {
  std::vector<ArchitectureRow> rows = {architecture(run, "child", "mip", 1.33, 0.231),
                                       architecture(run, "greedy", "greedy", 1.31, 0.412),
                                       architecture(run, "uniform", "uniform", 1.32, 0.345)};
  rows[0].detail_json = R"({"batch": 1})";
  if (run.is_long) {
    rows.push_back(architecture(run, "depth-only", "depth-only", 1.34, 0.93));
    rows.push_back(architecture(run, "max-parameters", "max-parameters", 1.3, 1.6));
    rows.push_back(architecture(run, "random", "random", 1.35, 2.4));
    rows.push_back(architecture(run, "child-2", "mip", 1.335, 0.244));
    rows.back().solution = 1;
  }
  for (const double speed : {1.05, 1.1, 1.2, 1.3, 1.4, 1.55, 1.7, 2.0}) {
    rows.push_back(architecture(run, fmt::format("sweep-{}x", speed), "mip", speed,
                                0.9 * std::pow(speed - 1.0, 1.25)));
    rows.back().detail_json = R"({"swept_cost": "generation_tokens_per_s"})";
  }
  db.put(rows);
}

void add_models(RunDb& db) {
  std::vector<ModelRow> rows;
  std::vector<EvaluationRow> evaluations;
  std::vector<ThroughputRow> speeds;
  struct Quality {
    const char* name;
    const char* role;
    const char* label;
    const char* architecture;
    double kl;
    double speed;
  };
  for (const Quality& q : std::vector<Quality>{
           {"parent", "parent", "Parent", "", 0.0, 1.0},
           {"child", "child", "Our child", "child", 0.243, 1.32},
           {"child-before", "before", "Our child before distillation", "child", 0.318, 1.32},
           {"child-paper-init", "baseline", "Same, paper's initialisation", "child", 0.742, 1.32},
           {"uniform", "baseline", "Best uniform child", "uniform", 0.412, 1.31},
           {"greedy", "baseline", "Greedy child", "greedy", 0.466, 1.305}}) {
    const bool is_parent = q.kl == 0.0;
    rows.push_back({.key = fmt::format("model {}", q.name),
                    .name = q.name,
                    .role = q.role,
                    .label = q.label,
                    .architecture = q.architecture,
                    .parameters = static_cast<std::int64_t>(134'515'008 / std::pow(q.speed, 1.2)),
                    .weight_bytes = static_cast<std::int64_t>(538'060'032 / std::pow(q.speed, 1.2)),
                    .file_bytes = static_cast<std::int64_t>(98'600'000 / std::pow(q.speed, 0.9)),
                    .kv_bytes_per_token = is_parent ? 23040 : 15360});
    const auto add = [&](const char* task, const char* metric, double value, double error,
                         std::int64_t count) {
      evaluations.push_back({.key = fmt::format("eval {}", q.name),
                             .model = q.name,
                             .task = task,
                             .metric = metric,
                             .value = value,
                             .standard_error = error,
                             .count = count});
    };
    const double loss = 2.94 + 0.8 * q.kl;
    if (!is_parent) {
      add("held-out text", "kl", q.kl, 0.02 * q.kl + 0.002, 16384);
      add("held-out text", "top1", 0.96 - 0.55 * q.kl, 0.003, 16384);
      add("held-out text", "loss_minus_parent", 0.8 * q.kl, 0.004, 16384);
      if (q.role != std::string("child")) {
        add("held-out text", "kl_minus_first", q.kl - 0.243, 0.01 * q.kl, 16384);
      }
    }
    add("held-out text", "perplexity", std::exp(loss), 0.31, 16384);
    add("held-out text", "bits_per_byte", loss / 2.9, 0.004, 61440);
    add("blimp", "accuracy", 0.802 - 0.09 * q.kl, 0.009, 2000);
    add("last word", "accuracy", 0.43 - 0.2 * q.kl, 0.011, 2000);
    add("multiple choice", "accuracy_norm", 0.487 - 0.1 * q.kl, 0.014, 1200);
    if (q.role != std::string("before")) {
      const double rate = 139.4 * q.speed;
      speeds.push_back({.key = fmt::format("speed {}", q.name),
                        .model = q.name,
                        .engine = "llama-server",
                        .batch = 1,
                        .prompt_tokens = 128,
                        .generated_tokens = 128,
                        .predicted_prefill_s = 0.462 / q.speed * (0.96 + 0.06 * noise(q.name)),
                        .measured_prefill_s = 0.462 / q.speed,
                        .predicted_generation_per_s = rate * (0.95 + 0.08 * noise(q.name)),
                        .measured_generation_per_s = rate,
                        .prefill_p10_s = 0.452 / q.speed,
                        .prefill_p90_s = 0.481 / q.speed,
                        .generation_p10_per_s = rate * 0.985,
                        .generation_p90_per_s = rate * 1.012,
                        .samples = 9});
    }
  }
  db.put(rows);
  db.put(evaluations);
  db.put(speeds);
}

void add_library(RunDb& db, const SyntheticRun& run) {
  const Space space = make_space(run.is_long);
  std::vector<VariantRow> rows;
  std::vector<CurveRow> curves;
  const std::int64_t num_points = run.is_long ? 9 : 3;
  for (std::int64_t layer = 0; layer < run.num_layers; ++layer) {
    for (const auto* half : {&space.attention, &space.ffn}) {
      for (const Variant& variant : *half) {
        if (variant.name == "none") {
          continue;
        }
        const double gain = variant.name == "kv1" ? 0.5 : variant.name == "linear" ? 0.02 : 0.12;
        const double before =
            (0.1 + 4 * variant.damage) * (0.7 + 0.6 * noise(fmt::format("b{}", layer)));
        const bool is_attention = half == &space.attention;
        rows.push_back({.key = fmt::format("bld {} {}", layer, variant.name),
                        .layer = layer,
                        .variant = (is_attention ? "attention/" : "ffn/") + variant.name,
                        .stage = "distill-blocks",
                        .init = "least-squares",
                        .error_before = before,
                        .error_after = before * (1 - gain),
                        .loss_before = before,
                        .loss_after = before * (1 - gain),
                        .tokens = 16384,
                        .kept = layer % 11 == 5 && variant.name == "linear" ? "before" : "after"});
        for (std::int64_t point = 0; point < num_points; ++point) {
          const double done = static_cast<double>(point) / static_cast<double>(num_points - 1);
          curves.push_back({.key = rows.back().key,
                            .stage = "distill-blocks",
                            .series = fmt::format("layer {}/{}", layer, rows.back().variant),
                            .metric = "heldout_error",
                            .step = point * 2,
                            .tokens = point * 16384 / (num_points - 1),
                            .value = before * (1 - gain * (1 - std::pow(1 - done, 2)))});
        }
      }
    }
  }
  db.put(rows);
  db.put(curves);
}

void add_distillation(RunDb& db, const SyntheticRun& run) {
  std::vector<CurveRow> curves;
  const std::int64_t steps = run.is_long ? 60 : 6;
  const auto add = [&](const std::string& metric, std::int64_t step, double value) {
    curves.push_back({.key = "gkd",
                      .stage = "distill-child",
                      .series = "child",
                      .metric = metric,
                      .step = step,
                      .tokens = step * 512,
                      .value = value});
  };
  for (std::int64_t step = 0; step <= steps; ++step) {
    const double done = static_cast<double>(step) / static_cast<double>(steps);
    const double kl = 0.243 + 0.075 * std::pow(1 - done, 1.7);
    add("kl", step, kl * (0.9 + 0.2 * noise(fmt::format("kl {}", step))));
    add("learning_rate", step, 3e-4 * (1 - done));
    if (step % (steps / 6) == 0) {
      add("heldout_kl", step, kl);
    }
  }
  db.put(curves);
}

void add_stages(RunDb& db) {
  const std::vector<std::pair<const char*, double>> times = {
      {"init-library", 312.0},  {"distill-blocks", 251.0}, {"score", 498.0},
      {"measure", 127.0},       {"search", 6.2},           {"assemble", 22.0},
      {"distill-child", 388.0}, {"evaluate", 121.0},       {"export", 14.0}};
  for (const auto& [stage, seconds] : times) {
    for (int part = 0; part < 2; ++part) {
      db.put(StageRecord{.key = fmt::format("{} {}", stage, part),
                         .stage = stage,
                         .what = fmt::format("part {}", part),
                         .seconds = seconds / 2,
                         .finished_at = "2026-10-31T12:00:00Z"});
    }
  }
}

}  // namespace

void fill_synthetic_run(RunDb& db, const SyntheticRun& run) {
  RunTransaction transaction(db);
  add_scores(db, run);
  add_architectures(db, run);
  add_models(db);
  add_library(db, run);
  add_distillation(db, run);
  add_stages(db);
  transaction.commit();
  add_facts(db, run);
}

}  // namespace puzzle::test
