#include "puzzle/stages/throughput.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/base/log.h"
#include "puzzle/base/options.h"
#include "puzzle/base/progress.h"
#include "puzzle/engine/llama_server.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/results/machine.h"
#include "puzzle/tensor/convert.h"
#include "puzzle/tensor/head_loss.h"

namespace puzzle {
namespace {

constexpr std::int64_t kThroughputVersion = 1;
constexpr const char* kQuantisedTask = "quantised file";

std::string throughput_key(const TimedFile& file, const Scenario& scenario,
                           const ThroughputOptions& options) {
  KeyBuilder key;
  key.add("stage", "throughput").add("version", kThroughputVersion).add("model", file.model);
  key.add("file", hash_file(file.file)).add("batch", file.batch);
  add_options_to_key(key, scenario);
  add_options_to_key(key, options);
  key.add("machine", to_json(read_machine()).dump());
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

// Times of one file over all rounds.
struct FileSamples {
  std::vector<double> prefill_s;
  std::vector<double> generation_per_s;
};

LlamaServerOptions server_for(const TimedFile& file, const Scenario& scenario,
                              const ThroughputOptions& options) {
  LlamaServerOptions server = options.llama_server;
  server.parallel = std::max(server.parallel, file.batch);
  server.context_tokens =
      std::max(server.context_tokens, scenario.prompt_tokens + scenario.generated_tokens + 8);
  return server;
}

// One server at a time would let drift favour a file; all are up together and take turns.
std::map<std::string, FileSamples> time_files(const std::vector<TimedFile>& files,
                                              const Scenario& scenario, const TokenPart& test,
                                              const ThroughputOptions& options) {
  std::vector<std::unique_ptr<LlamaServer>> servers;
  for (const TimedFile& file : files) {
    servers.push_back(
        std::make_unique<LlamaServer>(file.file, server_for(file, scenario, options)));
  }
  std::map<std::string, FileSamples> samples;
  const std::int64_t rounds = options.timing.warmup_calls + options.timing.samples;
  Progress progress("throughput", rounds * std::ssize(files), "runs");
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (std::size_t f = 0; f < files.size(); ++f) {
      const BatchCompletion answer = servers[f]->complete_batch(
          test_prompts(test, scenario, files[f].batch), {.num_tokens = scenario.generated_tokens});
      progress.advance();
      if (round >= options.timing.warmup_calls) {
        samples[files[f].model].prefill_s.push_back(answer.prompt_s());
        samples[files[f].model].generation_per_s.push_back(static_cast<double>(files[f].batch) /
                                                           std::max(1e-12, answer.step_s()));
      }
    }
  }
  return samples;
}

ThroughputRow as_row(const TimedFile& file, const FileSamples& samples, const Scenario& scenario,
                     const std::string& key) {
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
  row.measured_prefill_s = quantile(samples.prefill_s, 0.5);
  row.prefill_p10_s = quantile(samples.prefill_s, 0.1);
  row.prefill_p90_s = quantile(samples.prefill_s, 0.9);
  row.measured_generation_per_s = quantile(samples.generation_per_s, 0.5);
  row.generation_p10_per_s = quantile(samples.generation_per_s, 0.1);
  row.generation_p90_per_s = quantile(samples.generation_per_s, 0.9);
  row.samples = std::ssize(samples.prefill_s);
  return row;
}

at::Tensor head_of(const std::filesystem::path& path) {
  const GgufFile file(path);
  const StoredTensor* output = file.find_tensor("output.weight");
  const StoredTensor& head = output != nullptr ? *output : file.tensor("token_embd.weight");
  return tensor_from_bytes(head.dtype, head.shape, head.bytes, head.file, at::kFloat,
                           path.string());
}

// What llama.cpp computes with the file itself, after the final norm: [windows · T, D].
at::Tensor file_hidden(const TimedFile& file, const TokenPart& part,
                       const ThroughputOptions& options) {
  LlamaServerOptions server_options = options.llama_server;
  server_options.context_tokens = std::max(server_options.context_tokens, part.window() + 8);
  const LlamaServer server(file.file, server_options, LlamaServerMode::kHiddenStates);
  std::vector<at::Tensor> states;
  Progress progress("throughput: quality of " + file.model, part.num_windows(), "windows");
  for (std::int64_t w = 0; w < part.num_windows(); ++w) {
    const at::Tensor row = part.slice(w, 1).tokens_BT.reshape({-1}).to(at::kInt).contiguous();
    const HiddenStates hidden = server.hidden_states(
        {row.const_data_ptr<std::int32_t>(), static_cast<std::size_t>(row.numel())});
    states.push_back(at::tensor(hidden.values, at::TensorOptions(at::kFloat))
                         .reshape({hidden.num_tokens, hidden.width}));
    progress.advance();
  }
  return at::cat(states);
}

void put_mean(const std::string& key, const std::string& model, const std::string& metric,
              const at::Tensor& values_N, const at::Tensor& counted_N, std::int64_t windows,
              std::vector<EvaluationRow>& rows) {
  const at::Tensor sums = (values_N.to(at::kDouble) * counted_N).reshape({windows, -1}).sum(-1);
  const at::Tensor counts = counted_N.to(at::kDouble).reshape({windows, -1}).sum(-1);
  const double count = counts.sum().item<double>();
  const double mean = sums.sum().item<double>() / count;
  const auto units = static_cast<double>(windows);
  const double square = (sums - mean * counts).square().sum().item<double>();
  const double error = windows > 1 ? std::sqrt(square * units / (units - 1.0)) / count : 0.0;
  rows.push_back(
      {key, model, kQuantisedTask, metric, mean, error, static_cast<std::int64_t>(count)});
}

std::vector<EvaluationRow> file_quality(const std::vector<TimedFile>& files,
                                        const std::vector<std::string>& keys, const TokenPart& part,
                                        const ThroughputOptions& options) {
  std::vector<EvaluationRow> rows;
  at::Tensor labels;
  labels = part.slice(0, part.num_windows()).labels_BT.reshape({-1});
  const at::Tensor labelled = labels.ge(0);
  const at::Tensor all = at::ones_like(labelled);
  std::optional<HeadInput> first;
  for (std::size_t f = 0; f < files.size(); ++f) {
    const HeadInput input{file_hidden(files[f], part, options), head_of(files[f].file)};
    const TokenLosses losses = token_losses(first ? &*first : nullptr, input, labels);
    put_mean(keys[f], files[f].model, "loss", losses.nll, labelled, part.num_windows(), rows);
    if (first) {
      put_mean(keys[f], files[f].model, "kl", losses.kl, all, part.num_windows(), rows);
      put_mean(keys[f], files[f].model, "top1", losses.top1_agree, all, part.num_windows(), rows);
      put_mean(keys[f], files[f].model, "loss_minus_parent", losses.nll - losses.parent_nll,
               labelled, part.num_windows(), rows);
    } else {
      first = input;
    }
  }
  return rows;
}

}  // namespace

void ThroughputOptions::visit(OptionList& list) {
  list.add("enabled", enabled,
           "Whether exported files are timed in llama.cpp at the end of a run.");
  list.add("quality_tokens", quality_tokens, Range<std::int64_t>{0, std::int64_t{1} << 40},
           "Test tokens on which the quantised files themselves are compared; 0 for none.");
  list.section("timing", timing);
  list.section("llama_server", llama_server);
}

void measure_throughput(RunContext& context, const std::vector<TimedFile>& files,
                        const Scenario& scenario, const TokenPart& test,
                        const ThroughputOptions& options) {
  const c10::NoGradGuard no_grad;
  if (context.communicator.is_first() && options.enabled && !files.empty()) {
    const Stopwatch watch;
    std::vector<std::string> keys;
    bool done = true;
    for (const TimedFile& file : files) {
      keys.push_back(throughput_key(file, scenario, options));
      done = done && context.db.has(RunTable::kThroughput, keys.back());
    }
    if (!done) {
      const auto samples = time_files(files, scenario, test, options);
      std::vector<ThroughputRow> rows;
      for (std::size_t f = 0; f < files.size(); ++f) {
        rows.push_back(as_row(files[f], samples.at(files[f].model), scenario, keys[f]));
      }
      std::vector<EvaluationRow> quality;
      if (options.quality_tokens > 0 && test.num_windows() > 0) {
        quality = file_quality(files, keys, test.first_tokens(options.quality_tokens), options);
      }
      RunTransaction transaction(context.db);
      context.db.put(rows);
      context.db.put(quality);
      context.db.put({.key = KeyBuilder().add("throughput", fmt::format("{}", keys.front())).key(),
                      .stage = "throughput",
                      .what = fmt::format("{} files", files.size()),
                      .seconds = watch.seconds(),
                      .detail_json = "{}"});
      transaction.commit();
    }
    context.db.set_current(RunTable::kThroughput, "throughput", keys);
    context.db.set_current(RunTable::kEvaluations, "throughput", keys);
  }
  context.communicator.barrier();
}

}  // namespace puzzle
