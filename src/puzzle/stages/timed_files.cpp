#include "puzzle/stages/timed_files.h"

#include <algorithm>
#include <memory>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/results/machine.h"
#include "puzzle/results/run_db.h"

namespace puzzle {
namespace {

std::vector<std::vector<std::int32_t>> timed_prompts(const TokenPart& text,
                                                     const Scenario& scenario, std::int64_t batch) {
  if (text.num_windows() == 0) {
    fail(ErrorKind::kUsage, "no prompts: the {} part has no windows; set data.{}_tokens",
         text.name(), text.name());
  }
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<std::int32_t> stream;
  for (std::int64_t w = 0;
       w < text.num_windows() && std::ssize(stream) < batch * scenario.prompt_tokens; ++w) {
    const at::Tensor row = text.slice(w, 1).tokens_BT.reshape({-1}).to(at::kInt);
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
  LlamaServerOptions server = scenario_server(options, scenario);
  server.parallel = std::max(server.parallel, file.batch);
  server.context_tokens =
      std::max(server.context_tokens, scenario.prompt_tokens + scenario.generated_tokens + 8);
  return server;
}

// One server at a time would let drift favour a file; all are up together and take turns.
std::vector<FileTimes> times_of_files(const std::vector<TimedFile>& files, const Scenario& scenario,
                                      const TokenPart& text, const TimedEngine& engine,
                                      const std::string& stage,
                                      const std::function<void()>& after_run) {
  std::vector<std::unique_ptr<LlamaServer>> servers;
  for (const TimedFile& file : files) {
    const LlamaServerOptions options = server_for(file, scenario, engine.llama_server);
    servers.push_back(
        std::make_unique<LlamaServer>(file.file, numbered_server(options, std::ssize(servers))));
  }
  const TimingPolicy& policy = engine.timing;
  const std::vector<Timing> timings = measure_seconds(
      [&] {
        std::vector<double> seconds;
        for (std::size_t f = 0; f < files.size(); ++f) {
          const BatchCompletion answer =
              servers[f]->complete_batch(timed_prompts(text, scenario, files[f].batch),
                                         {.num_tokens = scenario.generated_tokens});
          after_run();
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
      if (timing.samples < policy.samples) {
        log_warning("{}: {} of {}: only {} of {} samples within timing.max_seconds ({:g} s)", stage,
                    phase, files[f].model, timing.samples, policy.samples, policy.max_seconds);
      } else if (timing.spread() > policy.max_spread) {
        log_warning(
            "{}: {} of {} spreads by {:.0f} % in the quietest of {} rounds; was the machine busy?",
            stage, phase, files[f].model, 100.0 * timing.spread(), timing.rounds);
      }
    }
  }
  return times;
}

void put_prediction(const TimedFile& file, ThroughputRow& row) {
  row.predicted_prefill_s.reset();
  row.predicted_generation_per_s.reset();
  if (file.prediction) {
    row.predicted_prefill_s = file.prediction->seconds.prefill_s;
    row.predicted_generation_per_s = file.prediction->generation_tokens_per_s;
  }
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
  put_prediction(file, row);
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

LlamaServerOptions scenario_server(const LlamaServerOptions& options, const Scenario& scenario) {
  LlamaServerOptions server = options;
  server.cache_type = scenario.cache_type;
  return server;
}

std::vector<ThroughputRow> time_files(const std::vector<TimedFile>& files, const Scenario& scenario,
                                      const TokenPart& text, const TimedEngine& engine,
                                      const std::string& stage, const std::string& key,
                                      const std::function<void()>& after_run) {
  const std::vector<FileTimes> times =
      times_of_files(files, scenario, text, engine, stage, after_run);
  std::vector<ThroughputRow> rows;
  for (std::size_t f = 0; f < files.size(); ++f) {
    rows.push_back(as_row(files[f], times[f], scenario, key));
  }
  return rows;
}

std::vector<ThroughputRow> recorded_times(const RunDb& db, const std::string& key,
                                          const std::vector<TimedFile>& files) {
  std::vector<ThroughputRow> rows = db.throughput(RowSet::kAll);
  std::erase_if(rows, [&](const ThroughputRow& row) { return row.key != key; });
  for (ThroughputRow& row : rows) {
    for (const TimedFile& file : files) {
      if (file.model == row.model && file.batch == row.batch) {
        put_prediction(file, row);
      }
    }
  }
  return rows;
}

std::int64_t most_runs(const TimingPolicy& policy, std::size_t num_files) {
  return (policy.warmup_calls + policy.samples * policy.max_rounds) *
         static_cast<std::int64_t>(num_files);
}

void add_timing_to_key(KeyBuilder& key, const std::vector<TimedFile>& files,
                       const std::vector<std::string>& contents, const Scenario& scenario,
                       const TokenPart& text, const TimedEngine& engine,
                       const std::string& engine_version) {
  for (std::size_t f = 0; f < files.size(); ++f) {
    key.add("model", files[f].model).add("file", contents[f]).add("batch", files[f].batch);
  }
  key.add("prompt_tokens", scenario.prompt_tokens);
  key.add("generated_tokens", scenario.generated_tokens).add("text", text.content_key());
  add_to_key(key, scenario_server(engine.llama_server, scenario));
  add_options_to_key(key, engine.timing);
  key.add("llama.cpp", engine_version).add("machine", to_json(read_machine()).dump());
}

}  // namespace puzzle
