// The llama-server engine: models that stack one kind of sub-block are written as GGUF files and
// timed in turn in a real llama.cpp.
#include <algorithm>
#include <map>
#include <memory>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/results/machine.h"
#include "puzzle/stages/gguf_export.h"
#include "puzzle/stages/measure_engines.h"
#include "puzzle/stages/weight_types.h"

namespace puzzle {
namespace {

// One request of a measurement; it gives a time of prefill and one of a step.
struct ServerPoint {
  std::int64_t batch;
  std::int64_t prompt;
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

// The parent's block alone at two depths, then each other sub-block beside the parent's other half,
// and one stack of all of them mixed, which the others should add up to.
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
  // Without "none", which behind an attention costs a little in `deci` (arch/lowering.h).
  std::vector<FfnSpec> ffns = distinct.ffn;
  if (std::erase(ffns, FfnSpec::none()) > 0 && ffns.empty()) {
    ffns = {own.ffn};
  }
  Architecture mixed;
  for (std::size_t i = 0; i < count; ++i) {
    mixed.push_back({distinct.attention[i % distinct.attention.size()], ffns[i % ffns.size()]});
  }
  mixed.front() = own;
  stacks.push_back(std::move(mixed));
  return stacks;
}

// Weights of the right shapes: the parent's first layer where it fits, constants elsewhere. Speed
// does not depend on values, nor on how far the context reaches, beyond which llama.cpp refuses.
ModelWeights stack_model(const LoadedModel& parent, const Architecture& layers,
                         std::int64_t context_tokens) {
  ModelWeights model = parent.weights;
  model.spec = with_layers(parent.weights.spec, layers);
  model.spec.context_length = std::max(model.spec.context_length, context_tokens);
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

std::vector<std::vector<std::int32_t>> prompts_of(const ServerPoint& point,
                                                  std::int64_t vocab_size) {
  std::vector<std::vector<std::int32_t>> prompts;
  for (std::int64_t b = 0; b < point.batch; ++b) {
    std::vector<std::int32_t> prompt;
    for (std::int64_t t = 0; t < point.prompt; ++t) {
      const std::uint64_t hash =
          derive_seed(static_cast<std::uint64_t>(b), fmt::format("prompt {}", t));
      prompt.push_back(static_cast<std::int32_t>(hash % static_cast<std::uint64_t>(vocab_size)));
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

// The stacks as files, for as long as it lives.
class StackFiles {
 public:
  StackFiles(const LoadedModel& parent, const std::vector<Architecture>& stacks,
             std::int64_t context_tokens, const std::filesystem::path& prefix,
             const WeightTypes& types) {
    make_folder(prefix.parent_path());
    remove_stale_files(prefix.parent_path());
    for (const Architecture& layers : stacks) {
      files_.paths.push_back(prefix.string() + fmt::format("-{}.gguf", files_.paths.size()));
      const ModelWeights model = stack_model(parent, layers, context_tokens);
      cache_bytes_.push_back(model_cost(model.spec, ExportTarget::kDeci, types).kv_bytes_per_token);
      write_model_gguf(files_.paths.back(), model,
                       {.name = "stack",
                        .license = "",
                        .parent_name = parent.weights.spec.name,
                        .tokenizer_source = parent.path,
                        .types = types});
    }
  }

  [[nodiscard]] const std::vector<std::filesystem::path>& paths() const { return files_.paths; }
  // Of all stacks together, for servers with `cached_tokens` each.
  [[nodiscard]] std::int64_t bytes(std::int64_t cached_tokens) const {
    std::int64_t sum = 0;
    for (std::size_t stack = 0; stack < paths().size(); ++stack) {
      sum += static_cast<std::int64_t>(std::filesystem::file_size(paths()[stack])) +
             cached_tokens * cache_bytes_[stack];
    }
    return sum;
  }

 private:
  // Of a run that was killed while it measured something else.
  static void remove_stale_files(const std::filesystem::path& folder) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() == ".gguf") {
        std::filesystem::remove(entry.path());
      }
    }
  }

  // Also gone if a later one cannot be written.
  struct Removed {
    std::vector<std::filesystem::path> paths{};

    Removed() = default;
    ~Removed() {
      for (const std::filesystem::path& path : paths) {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
      }
    }
    Removed(const Removed&) = delete;
    Removed& operator=(const Removed&) = delete;
  };

  Removed files_;
  std::vector<std::int64_t> cache_bytes_;  // per cached token
};

// Servers on the stacks' files: all are up together if memory allows; else each is started anew
// whenever its turn comes.
class StackServers {
 public:
  StackServers(const StackFiles& files, LlamaServerOptions options)
      : files_(files.paths()), options_(std::move(options)) {
    if (fits_memory(files)) {
      for (std::size_t stack = 0; stack < files_.size(); ++stack) {
        servers_.push_back(start(stack));
      }
    } else {
      log_info(
          "measure: memory is short, llama-server is started anew for each of {} stacks in turn",
          files_.size());
    }
  }

  // Calls `use` with the stack's server; `is_new` says that it has answered nothing yet.
  template <class Use>
  [[nodiscard]] auto with_server(std::size_t stack, const Use& use) const {
    if (!servers_.empty()) {
      return use(*servers_[stack], false);
    }
    const std::unique_ptr<LlamaServer> server = start(stack);
    return use(*server, true);
  }

 private:
  [[nodiscard]] std::unique_ptr<LlamaServer> start(std::size_t stack) const {
    return std::make_unique<LlamaServer>(
        files_[stack], numbered_server(options_, static_cast<std::int64_t>(stack)));
  }

  // Half of what is free, for the files, the KV caches and what a server needs besides.
  [[nodiscard]] bool fits_memory(const StackFiles& files) const {
    constexpr std::int64_t kServerBytes = std::int64_t{300} << 20;
    const std::int64_t needed = files.bytes(options_.parallel * options_.context_tokens) +
                                std::ssize(files_) * kServerBytes;
    return needed < available_memory_bytes() / 2;
  }

  const std::vector<std::filesystem::path>& files_;
  LlamaServerOptions options_;
  std::vector<std::unique_ptr<LlamaServer>> servers_;
};

std::int64_t context_of(std::int64_t prompt, const MeasureOptions& options) {
  return prompt + options.steps + 8;
}

LlamaServerOptions stack_server_options(const LlamaServerOptions& options, const Scenario& scenario,
                                        const std::vector<ServerPoint>& points,
                                        const MeasureOptions& measure_options) {
  LlamaServerOptions server = options;
  server.cache_type = scenario.cache_type;
  for (const ServerPoint& point : points) {
    server.parallel = std::max(server.parallel, point.batch);
    server.context_tokens =
        std::max(server.context_tokens, context_of(point.prompt, measure_options));
  }
  return server;
}

// A killed run's passes, or none.
StackSamples load_samples(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored) ? load_json(file).get<StackSamples>()
                                                : StackSamples{};
}

std::filesystem::path files_prefix(const RunContext& context, const std::string& key) {
  return context.folder / "measure" / key.substr(0, 16);
}

// The passes made so far at one batch size.
std::filesystem::path samples_file(const std::filesystem::path& prefix, std::int64_t batch) {
  return prefix.string() + fmt::format("-b{}.json", batch);
}

// All stacks at one batch size. A server with slots for more sequences would be another one: its
// steps take longer, and what other sequences left in its cache is read along.
StackCosts measure_batch(const std::vector<Architecture>& stacks, const StackFiles& files,
                         const std::filesystem::path& samples, std::int64_t vocab_size,
                         const Scenario& scenario, std::int64_t batch,
                         const MeasureOptions& options, const TimedEngine& engine,
                         const KeepStep& keep_step) {
  std::vector<ServerPoint> points;
  StackPlan plan;
  for (const std::int64_t prompt : measured_contexts(scenario, options)) {
    points.push_back({batch, prompt});
    plan.points.push_back({Phase::kPrefill, batch, prompt});
    // A step's time is the mean over `steps`, so it stands for the middle of them.
    plan.points.push_back({Phase::kGenerate, batch, prompt + options.steps / 2});
  }
  for (const Architecture& stack : stacks) {
    plan.counts.push_back(subblock_counts(stack));
  }
  const StackServers servers(files,
                             stack_server_options(engine.llama_server, scenario, points, options));
  std::vector<std::vector<std::vector<std::int32_t>>> prompts;
  for (const ServerPoint& point : points) {
    prompts.push_back(prompts_of(point, vocab_size));
  }
  const auto time = [&](std::size_t stack) {
    return servers.with_server(stack, [&](const LlamaServer& server, bool is_new) {
      std::vector<double> seconds;
      for (const auto& prompt : prompts) {
        const CompletionOptions request{.num_tokens = options.steps + 1};
        if (is_new) {
          (void)server.complete_batch(prompt, request);
        }
        const BatchCompletion answer = server.complete_batch(prompt, request);
        seconds.push_back(answer.prompt_s());
        seconds.push_back(answer.step_s());
      }
      return seconds;
    });
  };
  const auto keep = [&](const StackSamples& made) {
    save_json(samples, made);
    keep_step();
  };
  return measure_stacks(plan, engine.timing, {.time = time, .after_pass = keep},
                        load_samples(samples));
}

}  // namespace

StackCosts measure_llama_server(const RunContext& context, const LoadedModel& parent,
                                const SearchSpace& space, const Scenario& scenario,
                                const MeasureOptions& options, const TimedEngine& engine,
                                const std::string& key, const KeepStep& keep_step) {
  const c10::NoGradGuard no_grad;
  const std::vector<Architecture> stacks = stacks_to_time(
      timed_subblocks(space, options), parent.weights.spec.layers.front(), options.stack_layers);
  const std::filesystem::path prefix = files_prefix(context, key);
  const std::int64_t context_tokens =
      context_of(measured_contexts(scenario, options).back(), options);
  const StackFiles files(parent, stacks, context_tokens, prefix,
                         deployed_types(options.types, scenario, parent.path));
  StackCosts costs;
  for (const std::int64_t batch : scenario.batch) {
    const StackCosts more =
        measure_batch(stacks, files, samples_file(prefix, batch), parent.weights.spec.vocab_size,
                      scenario, batch, options, engine, keep_step);
    log_info(
        "measure: llama-server, batch {}, {} stacks; a stack's time is off by {:.1f} % at most",
        batch, stacks.size(), 100.0 * more.worst_residual);
    costs.rows.insert(costs.rows.end(), more.rows.begin(), more.rows.end());
    costs.doubts.insert(costs.doubts.end(), more.doubts.begin(), more.doubts.end());
    costs.worst_residual = std::max(costs.worst_residual, more.worst_residual);
  }
  return costs;
}

void remove_llama_server_passes(const RunContext& context, const Scenario& scenario,
                                const std::string& key) {
  for (const std::int64_t batch : scenario.batch) {
    std::error_code ignored;
    std::filesystem::remove(samples_file(files_prefix(context, key), batch), ignored);
  }
}

}  // namespace puzzle
