#include "puzzle/app/plan.h"

#include <algorithm>
#include <chrono>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/stages/measure.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

constexpr double kFp32Bytes = 4.0;

// FLOPs per token, forward, of the layers and of the head, at the recipe's window length.
struct PerToken {
  double layers;
  double head;
};

PerToken flops_per_token(const ModelSpec& spec, std::int64_t window) {
  const FlopsQuery query{.batch = 1, .new_tokens = window};
  const auto tokens = static_cast<double>(window);
  const double head = static_cast<double>(head_flops(spec, query)) / tokens;
  return {static_cast<double>(model_flops(spec, query)) / tokens - head, head};
}

std::int64_t layer_variants(const LayerSpace& layer) {
  return std::ssize(layer.attention) + std::ssize(layer.ffn) -
         2;  // without the parent's own halves
}

// Grams and solves: F² per token and channel pair, plus the elimination's cubic part.
double init_flops(const Recipe& recipe, const ModelSpec& spec) {
  double flops = 0;
  const auto tokens = static_cast<double>(recipe.data.calibration_tokens);
  const auto hidden = static_cast<double>(spec.hidden_size);
  for (const BlockSpec& block : spec.layers) {
    const auto width = static_cast<double>(block.ffn.width);
    flops += tokens * 2.0 * (width * width + width * hidden + 3.0 * hidden * hidden);
    flops += 3.0 * width * width * width + 2.0 * hidden * hidden * hidden;
  }
  return flops;
}

double library_bytes(const ModelSpec& spec, const SearchSpace& space) {
  double bytes = 0;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    for (const AttentionSpec& attention : space.layers[i].attention) {
      if (attention != spec.layers[i].attention) {
        bytes += static_cast<double>(attention_cost(spec, attention, WeightTypes{}).weight_bytes);
      }
    }
    for (const FfnSpec& ffn : space.layers[i].ffn) {
      if (ffn != spec.layers[i].ffn) {
        bytes += static_cast<double>(ffn_cost(spec, ffn, WeightTypes{}).weight_bytes);
      }
    }
  }
  return bytes;
}

}  // namespace

Plan make_plan(const Recipe& recipe, const ModelSpec& parent, double flops_per_s) {
  const SearchSpace space = make_search_space(recipe.search_space, parent);
  const PartCost whole = model_cost(parent, ExportTarget::kNative, WeightTypes{});
  const PerToken per_token = flops_per_token(parent, recipe.data.window);
  const auto weights = static_cast<double>(whole.weight_bytes);
  const auto hidden = static_cast<double>(parent.hidden_size);
  const double layer_library =
      library_bytes(parent, space) / static_cast<double>(parent.num_layers());
  Plan plan;
  plan.parent = parent.name;
  plan.parent_parameters = whole.parameters;
  plan.log10_architectures = space.log10_architectures();
  plan.flops_per_s = flops_per_s;
  double half_depth_variants = 0;
  for (std::size_t i = 0; i < space.layers.size(); ++i) {
    const std::int64_t variants = layer_variants(space.layers[i]);
    plan.num_candidates += variants;
    half_depth_variants += static_cast<double>(variants) *
                           static_cast<double>(space.layers.size() - i) /
                           static_cast<double>(space.layers.size());
  }
  const auto add = [&](const char* stage, std::int64_t tokens, double flops, double memory,
                       double disk, double fixed_seconds = 0.0) {
    plan.stages.push_back(
        {stage, tokens, flops, memory, disk, flops / flops_per_s + fixed_seconds});
  };
  const auto state_bytes = [&](std::int64_t tokens) {
    return static_cast<double>(tokens) * hidden * kFp32Bytes;
  };
  const auto calibration = static_cast<double>(recipe.data.calibration_tokens);
  add("init-library", recipe.data.calibration_tokens,
      calibration * per_token.layers + init_flops(recipe, parent),
      weights + state_bytes(recipe.data.calibration_tokens + recipe.data.validation_tokens) +
          layer_library,
      library_bytes(parent, space));
  if (recipe.train_blocks) {
    const std::int64_t tokens = recipe.distill_blocks.num_tokens;
    const double variants_flops = per_token.layers / static_cast<double>(parent.num_layers()) *
                                  static_cast<double>(plan.num_candidates) * 3.0;
    add("distill-blocks", tokens, static_cast<double>(tokens) * (per_token.layers + variants_flops),
        weights + state_bytes(tokens) + 4.0 * layer_library, library_bytes(parent, space));
  }
  const std::int64_t scored =
      recipe.score.num_tokens > 0 ? recipe.score.num_tokens : recipe.data.scoring_tokens;
  add("score", scored,
      static_cast<double>(scored) * (half_depth_variants * per_token.layers +
                                     static_cast<double>(plan.num_candidates) * per_token.head),
      weights + state_bytes(2 * scored) + static_cast<double>(recipe.score.hidden_mib) * 1048576.0,
      0.0);
  const DistinctSubblocks distinct = distinct_subblocks(space);
  const double timed =
      static_cast<double>(std::ssize(distinct.attention) + std::ssize(distinct.ffn));
  const bool runs = recipe.measure.engine == "native" || recipe.measure.engine == "llama-server";
  add("measure", 0, 0.0, weights, 0.0, runs ? 10.0 * timed : 0.0);
  add("search", 0, 0.0, weights, 0.0, 5.0);
  if (recipe.train_child) {
    const std::int64_t tokens = recipe.distill_child.num_tokens;
    add("distill-child", tokens,
        static_cast<double>(tokens) * 4.0 * (per_token.layers + per_token.head),
        weights * 5.0 + state_bytes(recipe.distill_child.micro_windows * recipe.data.window *
                                    parent.num_layers() * 12),
        weights * 5.0);
  }
  const std::int64_t tested =
      recipe.evaluate.num_tokens > 0 ? recipe.evaluate.num_tokens : recipe.data.test_tokens;
  const double models = 2.0 + static_cast<double>(recipe.compare.size());
  add("evaluate", tested,
      static_cast<double>(tested) * models * (2.0 * per_token.head + 2.0 * per_token.layers),
      weights * 2.0, 0.0);
  add("export", 0, 0.0, weights * 2.0, weights, weights / 200e6);
  return plan;
}

double measure_flops_per_s(const std::string& device_name) {
  const c10::Device device = parse_device(device_name);
  const std::int64_t size = device.is_cpu() ? 1024 : 4096;
  const at::Tensor a = at::full({size, size}, 0.5, at::TensorOptions(device).dtype(at::kFloat));
  double best_s = 1e30;
  for (int round = 0; round < 4; ++round) {
    synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    (void)a.mm(a);
    synchronize(device);
    best_s = std::min(
        best_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const auto n = static_cast<double>(size);
  // Whole layers reach about two thirds of what one large product does.
  return 0.65 * 2.0 * n * n * n / best_s;
}

std::string plan_text(const Plan& plan) {
  std::string text = fmt::format(
      "parent {}: {} parameters; 10^{:.0f} architectures, {} variants to score\n"
      "times at {}FLOP/s\n\n{:<15} {:>9} {:>11} {:>10} {:>10} {:>14}\n",
      plan.parent, human_count(static_cast<double>(plan.parent_parameters)),
      plan.log10_architectures, plan.num_candidates, human_count(plan.flops_per_s), "stage",
      "tokens", "FLOPs", "memory", "disk", "time");
  double seconds = 0;
  for (const StagePlan& stage : plan.stages) {
    text += fmt::format("{:<15} {:>9} {:>11} {:>10} {:>10} {:>14}\n", stage.stage,
                        human_count(static_cast<double>(stage.tokens)), human_count(stage.flops),
                        human_bytes(stage.memory_bytes), human_bytes(stage.disk_bytes),
                        human_seconds(stage.seconds));
    seconds += stage.seconds;
  }
  return text + fmt::format("{:<15} {:>58}\n", "total", human_seconds(seconds));
}

Json plan_json(const Plan& plan) {
  Json stages = Json::array();
  for (const StagePlan& stage : plan.stages) {
    stages.push_back({{"stage", stage.stage},
                      {"tokens", stage.tokens},
                      {"flops", stage.flops},
                      {"memory_bytes", stage.memory_bytes},
                      {"disk_bytes", stage.disk_bytes},
                      {"seconds", stage.seconds}});
  }
  return {{"parent", plan.parent},
          {"parameters", plan.parent_parameters},
          {"log10_architectures", plan.log10_architectures},
          {"variants", plan.num_candidates},
          {"flops_per_s", plan.flops_per_s},
          {"stages", stages}};
}

}  // namespace puzzle
