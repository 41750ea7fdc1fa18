#include "puzzle/stages/throughput.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/facts.h"
#include "puzzle/results/machine.h"
#include "puzzle/stages/file_quality.h"

namespace puzzle {
namespace {

constexpr std::int64_t kThroughputVersion = 2;

// Of all files together, since they are timed in turn and compared with the first.
std::string throughput_key(const std::vector<TimedFile>& files, const Scenario& scenario,
                           const TokenPart& test, const ThroughputOptions& options,
                           const TimedEngine& engine, const std::string& engine_version) {
  KeyBuilder key;
  key.add("stage", "throughput").add("version", kThroughputVersion);
  for (const TimedFile& file : files) {
    key.add("model", file.model).add("file", model_content_key(file.file)).add("batch", file.batch);
    if (file.prediction) {
      key.add("prefill_s", file.prediction->seconds.prefill_s);
      key.add("generation_s", file.prediction->seconds.generation_s);
    }
  }
  key.add("prompt_tokens", scenario.prompt_tokens);
  key.add("generated_tokens", scenario.generated_tokens);
  key.add("quality_tokens", options.quality_tokens);
  key.add("log_prob_tokens", options.log_prob_tokens).add("test", test.content_key());
  LlamaServerOptions server = engine.llama_server;
  server.cache_type = scenario.cache_type;
  add_to_key(key, server);
  add_options_to_key(key, engine.timing);
  key.add("llama.cpp", engine_version).add("machine", to_json(read_machine()).dump());
  return key.key();
}

std::vector<std::vector<std::int32_t>> test_prompts(const TokenPart& test, const Scenario& scenario,
                                                    std::int64_t batch) {
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<std::int32_t> stream;
  for (std::int64_t w = 0;
       w < test.num_windows() && std::ssize(stream) < batch * scenario.prompt_tokens; ++w) {
    const at::Tensor row = test.slice(w, 1).tokens_BT.reshape({-1}).to(at::kInt);
    stream.insert(stream.end(), row.const_data_ptr<std::int32_t>(),
                  row.const_data_ptr<std::int32_t>() + row.numel());
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    std::vector<std::int32_t> prompt;
    for (std::int64_t t = 0; t < scenario.prompt_tokens; ++t) {
      prompt.push_back(
          stream[static_cast<std::size_t>((b * scenario.prompt_tokens + t) % std::ssize(stream))]);
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

struct FileTimes {
  Timing prefill;
  Timing step;
};

LlamaServerOptions server_for(const TimedFile& file, const Scenario& scenario,
                              const LlamaServerOptions& options) {
  LlamaServerOptions server = options;
  server.cache_type = scenario.cache_type;
  server.parallel = std::max(server.parallel, file.batch);
  server.context_tokens =
      std::max(server.context_tokens, scenario.prompt_tokens + scenario.generated_tokens + 8);
  return server;
}

// One server at a time would let drift favour a file; all are up together and take turns.
std::vector<FileTimes> time_files(const std::vector<TimedFile>& files, const Scenario& scenario,
                                  const TokenPart& test, const TimedEngine& engine) {
  std::vector<std::unique_ptr<LlamaServer>> servers;
  for (const TimedFile& file : files) {
    const LlamaServerOptions options = server_for(file, scenario, engine.llama_server);
    servers.push_back(
        std::make_unique<LlamaServer>(file.file, numbered_server(options, std::ssize(servers))));
  }
  const TimingPolicy& policy = engine.timing;
  Progress progress("throughput",
                    (policy.warmup_calls + policy.samples * policy.max_rounds) * std::ssize(files),
                    "runs at most");
  const std::vector<Timing> timings = measure_all_seconds(
      [&] {
        std::vector<double> seconds;
        for (std::size_t f = 0; f < files.size(); ++f) {
          const BatchCompletion answer =
              servers[f]->complete_batch(test_prompts(test, scenario, files[f].batch),
                                         {.num_tokens = scenario.generated_tokens});
          progress.advance();
          seconds.push_back(answer.prompt_s());
          seconds.push_back(answer.step_s());
        }
        return seconds;
      },
      policy);
  std::vector<FileTimes> times;
  for (std::size_t f = 0; f < files.size(); ++f) {
    times.push_back({timings[2 * f], timings[2 * f + 1]});
    for (const auto& [phase, timing] :
         {std::pair("prefill", times.back().prefill), std::pair("generation", times.back().step)}) {
      if (timing.spread() > policy.max_spread) {
        log_warning(
            "throughput: {} of {} spreads by {:.0f} % in the quietest of {} rounds; was the "
            "machine busy?",
            phase, files[f].model, 100.0 * timing.spread(), timing.rounds);
      }
    }
  }
  return times;
}

ThroughputRow as_row(const TimedFile& file, const FileTimes& times, const Scenario& scenario,
                     const std::string& key) {
  const auto per_s = [&file](double step_s) {
    return step_s > 0.0 ? static_cast<double>(file.batch) / step_s : 0.0;
  };
  ThroughputRow row;
  row.key = key;
  row.model = file.model;
  row.engine = "llama-server";
  row.batch = file.batch;
  row.prompt_tokens = scenario.prompt_tokens;
  row.generated_tokens = scenario.generated_tokens;
  if (file.prediction) {
    row.predicted_prefill_s = file.prediction->seconds.prefill_s;
    row.predicted_generation_per_s = file.prediction->generation_tokens_per_s;
  }
  row.measured_prefill_s = times.prefill.median_s;
  row.prefill_p10_s = times.prefill.p10_s;
  row.prefill_p90_s = times.prefill.p90_s;
  row.measured_generation_per_s = per_s(times.step.median_s);
  row.generation_p10_per_s = per_s(times.step.p90_s);  // long steps are low rates
  row.generation_p90_per_s = per_s(times.step.p10_s);
  row.samples = times.step.samples;
  return row;
}

}  // namespace

void ThroughputOptions::visit(OptionList& list) {
  const Range<std::int64_t> tokens{0, std::int64_t{1} << 40};
  list.add("enabled", enabled,
           "Whether exported files are timed in llama.cpp at the end of a run.");
  list.add("quality_tokens", quality_tokens, tokens,
           "Test tokens on which the quantised files are compared by llama.cpp's hidden states; 0 "
           "for none.");
  list.add("log_prob_tokens", log_prob_tokens, tokens,
           "Test tokens on which they are compared by llama.cpp's own log-probabilities, some ten "
           "times slower; 0 for none.");
}

void measure_throughput(RunContext& context, const std::vector<TimedFile>& files,
                        const Scenario& scenario, const TokenPart& test,
                        const ThroughputOptions& options, const TimedEngine& engine) {
  const c10::NoGradGuard no_grad;
  if (context.communicator.is_first() && options.enabled && !files.empty()) {
    const Stopwatch watch;
    const std::string version = find_llama_server_version(engine.llama_server);
    put_engine_version(context.db, version);
    const std::string key = throughput_key(files, scenario, test, options, engine, version);
    if (!context.db.has_stage(key)) {
      const std::vector<FileTimes> times = time_files(files, scenario, test, engine);
      std::vector<ThroughputRow> rows;
      std::vector<JudgedFile> judged;
      for (std::size_t f = 0; f < files.size(); ++f) {
        rows.push_back(as_row(files[f], times[f], scenario, key));
        judged.push_back({files[f].model, files[f].file, key});
      }
      std::vector<EvaluationRow> quality;
      const auto judge = [&](std::int64_t tokens, const auto& quality_of) {
        if (tokens > 0 && test.num_windows() > 0) {
          const std::vector<EvaluationRow> more =
              quality_of(judged, test.first_tokens(tokens), engine.llama_server);
          quality.insert(quality.end(), more.begin(), more.end());
        }
      };
      judge(options.quality_tokens, hidden_state_quality);
      judge(options.log_prob_tokens, log_prob_quality);
      RunTransaction transaction(context.db);
      context.db.put(rows);
      context.db.put(quality);
      context.db.put({.key = key,
                      .stage = "throughput",
                      .what = fmt::format("{} files", files.size()),
                      .seconds = watch.seconds(),
                      .detail_json = "{}"});
      transaction.commit();
    }
    context.db.set_current(RunTable::kThroughput, "throughput", {key});
    context.db.set_current(RunTable::kEvaluations, "throughput", {key});
  }
  context.communicator.barrier();
}

}  // namespace puzzle
