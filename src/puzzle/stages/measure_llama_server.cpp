// The llama-server engine: models that stack one kind of sub-block are written as GGUF files and
// timed in a real llama.cpp; a non-negative least-squares fit takes the sub-blocks' times apart.
#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/engine/stack_times.h"
#include "puzzle/results/machine.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/measure.h"

namespace puzzle {
namespace {

constexpr std::int64_t kStackVersion = 1;

struct StackPoint {
  std::int64_t batch;
  std::int64_t prompt;
};

// Timings of one stack: prefill and step for every point, in order.
struct StackTimes {
  std::vector<Timing> prefill;
  std::vector<Timing> step;
};

std::map<std::string, std::int64_t> subblock_counts(const Architecture& layers) {
  std::map<std::string, std::int64_t> counts;
  for (const BlockSpec& block : layers) {
    if (block.attention.kind != AttentionKind::kNone) {
      ++counts[subblock_name(block.attention)];
    }
    if (block.ffn.kind != FfnKind::kNone) {
      ++counts[subblock_name(block.ffn)];
    }
  }
  return counts;
}

// The parent's block alone at two depths, then each other sub-block beside the parent's other half.
// The first layer keeps the parent's attention, which llama.cpp's `deci` wants there.
std::vector<Architecture> stacks_to_time(const DistinctSubblocks& distinct, const BlockSpec& own,
                                         std::int64_t depth) {
  const auto count = static_cast<std::size_t>(depth);
  std::vector<Architecture> stacks = {Architecture(count, own), Architecture(2 * count, own)};
  const auto add = [&](const BlockSpec& block) {
    Architecture layers(count, block);
    layers.front().attention = own.attention;
    stacks.push_back(std::move(layers));
  };
  for (const AttentionSpec& attention : distinct.attention) {
    if (attention != own.attention) {
      add({attention, own.ffn});
    }
  }
  // Without a stack that lacks attention the halves of the parent's block cannot be told apart.
  if (std::find(distinct.attention.begin(), distinct.attention.end(), AttentionSpec::none()) ==
      distinct.attention.end()) {
    add({AttentionSpec::none(), own.ffn});
  }
  for (const FfnSpec& ffn : distinct.ffn) {
    if (ffn != own.ffn && ffn.kind != FfnKind::kNone) {
      add({own.attention, ffn});
    }
  }
  return stacks;
}

// Weights of the right shapes: the parent's first layer where it fits, constants elsewhere. Speed
// does not depend on values.
ModelWeights stack_model(const LoadedModel& parent, const Architecture& layers) {
  ModelWeights model = parent.weights;
  model.spec = with_layers(parent.weights.spec, layers);
  const LayerWeights& own = parent.weights.layers.front();
  const auto source = [&](const NamedShape& wanted) {
    return at::full(wanted.shape, 0.01, at::TensorOptions(at::kFloat));
  };
  model.layers.clear();
  for (const BlockSpec& block : layers) {
    model.layers.push_back(
        {block.attention == own.attention.spec
             ? own.attention
             : make_attention(model.spec, block.attention, source),
         block.ffn == own.ffn.spec ? own.ffn : make_ffn(model.spec, block.ffn, source)});
  }
  return model;
}

std::vector<std::vector<std::int32_t>> prompts_of(const StackPoint& point,
                                                  std::int64_t vocab_size) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::int64_t b = 0; b < point.batch; ++b) {
    std::vector<std::int32_t> prompt;
    for (std::int64_t t = 0; t < point.prompt; ++t) {
      const std::uint64_t hash =
          derive_seed(static_cast<std::uint64_t>(b), fmt::format("prompt {}", t));
      prompt.push_back(
          static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(vocab_size - 256)) + 128);
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

StackTimes time_stack(const LlamaServer& server, const std::vector<StackPoint>& points,
                      std::int64_t vocab_size, const MeasureOptions& options) {
  StackTimes times;
  for (const StackPoint& point : points) {
    const auto prompts = prompts_of(point, vocab_size);
    const std::vector<Timing> both = measure_all_seconds(
        [&] {
          const BatchCompletion answer =
              server.complete_batch(prompts, {.num_tokens = options.steps + 1});
          return std::vector<double>{answer.prompt_s(), answer.step_s()};
        },
        options.timing);
    times.prefill.push_back(both[0]);
    times.step.push_back(both[1]);
  }
  return times;
}

Json timings_json(const std::vector<Timing>& timings) {
  Json list = Json::array();
  for (const Timing& t : timings) {
    list.push_back({t.median_s, t.p10_s, t.p90_s, t.samples});
  }
  return list;
}

std::vector<Timing> parse_timings(const Json& list) {
  std::vector<Timing> timings;
  for (const Json& entry : list) {
    Timing timing;
    timing.median_s = entry.at(0).get<double>();
    timing.p10_s = entry.at(1).get<double>();
    timing.p90_s = entry.at(2).get<double>();
    timing.samples = entry.at(3).get<std::int64_t>();
    timings.push_back(timing);
  }
  return timings;
}

std::string stack_key(const LoadedModel& parent, const Architecture& layers,
                      const std::vector<StackPoint>& points, const MeasureOptions& options) {
  KeyBuilder key;
  key.add("stage", "measure/stack").add("version", kStackVersion);
  add_model_spec_to_key(key, with_layers(parent.weights.spec, layers));
  for (const StackPoint& point : points) {
    key.add("batch", point.batch).add("prompt", point.prompt);
  }
  add_options_to_key(key, options);
  key.add("machine", to_json(read_machine()).dump());
  return key.key();
}

class StackTimer {
 public:
  StackTimer(RunContext& context, const LoadedModel& parent, const MeasureOptions& options,
             std::vector<StackPoint> points)
      : context_(context), parent_(parent), options_(options), points_(std::move(points)) {}

  // From run.db where a killed run left it.
  StackTimes times(const Architecture& layers) const {
    const std::string key = stack_key(parent_, layers, points_, options_);
    if (const auto record = context_.db.find_stage(key)) {
      const Json detail = parse_json(record->detail_json, "run.db: measure/stack");
      return {parse_timings(detail.at("prefill_s")), parse_timings(detail.at("step_s"))};
    }
    const Stopwatch watch;
    const std::filesystem::path file = context_.folder / "measure" / (key.substr(0, 16) + ".gguf");
    make_folder(file.parent_path());
    write_deci_gguf(file, stack_model(parent_, layers),
                    {.name = "stack",
                     .license = "",
                     .parent_name = parent_.weights.spec.name,
                     .tokenizer_source = parent_.path,
                     .types = gguf_weight_types(options_.types, parent_.path)});
    StackTimes times;
    {
      const LlamaServer server(file, server_options());
      times = time_stack(server, points_, parent_.weights.spec.vocab_size, options_);
    }
    std::filesystem::remove(file);
    const Json detail = {{"prefill_s", timings_json(times.prefill)},
                         {"step_s", timings_json(times.step)}};
    context_.db.put({.key = key,
                     .stage = "measure/stack",
                     .what = fmt::format("{} x {}", layers.size(), layers.back().name()),
                     .seconds = watch.seconds(),
                     .detail_json = detail.dump()});
    return times;
  }

 private:
  [[nodiscard]] LlamaServerOptions server_options() const {
    LlamaServerOptions server = options_.llama_server;
    for (const StackPoint& point : points_) {
      server.parallel = std::max(server.parallel, point.batch);
      server.context_tokens = std::max(server.context_tokens, point.prompt + options_.steps + 8);
    }
    return server;
  }

  RunContext& context_;
  const LoadedModel& parent_;
  const MeasureOptions& options_;
  std::vector<StackPoint> points_;
};

double relative_spread(const Timing& timing, double fraction_value) {
  return timing.median_s > 0 ? fraction_value / timing.median_s : 1.0;
}

}  // namespace

LlamaServerCosts measure_llama_server(RunContext& context, const LoadedModel& parent,
                                      const SearchSpace& space, const Scenario& scenario,
                                      const MeasureOptions& options) {
  const c10::NoGradGuard no_grad;
  std::vector<StackPoint> points;
  for (const std::int64_t batch : scenario.batch) {
    for (const std::int64_t prompt : measured_contexts(scenario, options)) {
      points.push_back({batch, prompt});
    }
  }
  const std::vector<Architecture> stacks = stacks_to_time(
      distinct_subblocks(space), parent.weights.spec.layers.front(), options.stack_layers);
  const StackTimer timer(context, parent, options, points);
  Progress progress("measure", std::ssize(stacks), "stacks");
  std::vector<StackTimes> times;
  for (const Architecture& stack : stacks) {
    times.push_back(timer.times(stack));
    progress.advance(1, stack.back().name());
  }
  LlamaServerCosts costs;
  for (std::size_t p = 0; p < points.size(); ++p) {
    for (const Phase phase : {Phase::kPrefill, Phase::kGenerate}) {
      std::vector<StackTiming> equations;
      const auto timing = [&](std::size_t s) -> const Timing& {
        return phase == Phase::kPrefill ? times[s].prefill[p] : times[s].step[p];
      };
      for (std::size_t s = 0; s < stacks.size(); ++s) {
        equations.push_back({subblock_counts(stacks[s]), timing(s).median_s});
      }
      const SubblockTimes solved = solve_subblock_times(equations);
      costs.worst_residual = std::max(costs.worst_residual, solved.residual_max);
      // A step's time is the mean over `steps`, so it stands for the middle of them.
      const std::int64_t at = points[p].prompt + (phase == Phase::kPrefill ? 0 : options.steps / 2);
      for (const auto& [name, seconds] : solved.seconds) {
        costs.rows.push_back({name, phase, points[p].batch, at, seconds,
                              seconds * relative_spread(timing(0), timing(0).p10_s),
                              seconds * relative_spread(timing(0), timing(0).p90_s),
                              timing(0).samples});
      }
    }
  }
  log_info("measure: llama-server, {} stacks; a stack's time is off by {:.1f} % at most",
           stacks.size(), 100.0 * costs.worst_residual);
  return costs;
}

}  // namespace puzzle
