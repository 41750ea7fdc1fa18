// Exported files timed side by side in llama.cpp, at one workload.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/data/token_split.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/engine/timed_engine.h"
#include "puzzle/results/rows.h"

namespace puzzle {

class KeyBuilder;
class RunDb;

struct TimedFile {
  std::string model;                     // ModelRow::name: "parent", "child", …
  std::filesystem::path file;            // a .gguf
  std::optional<Prediction> prediction;  // of llama-server, for these weight types and this batch
  std::int64_t batch = 1;
};

// The server that a scenario is about: with its type of KV cache.
[[nodiscard]] LlamaServerOptions scenario_server(const LlamaServerOptions& options,
                                                 const Scenario& scenario);

// Times prefill and generation of every file with the scenario's prompt and generation lengths, the
// files in turn so that drift of a shared machine hits all alike, in rounds by the timing policy (a
// round is as noisy as the noisiest file). Prompts are text of `text`, from its beginning again
// where that is too short. `after_run` is called after every request to a server, of which there
// are at most most_runs(). Warns, with `stage` in front, if no round was quiet. Throws Error(kIo)
// if llama.cpp cannot be run, Error(kUsage) for a part without text.
[[nodiscard]] std::vector<ThroughputRow> time_files(const std::vector<TimedFile>& files,
                                                    const Scenario& scenario, const TokenPart& text,
                                                    const TimedEngine& engine,
                                                    const std::string& stage,
                                                    const std::string& key,
                                                    const std::function<void()>& after_run);
[[nodiscard]] std::int64_t most_runs(const TimingPolicy& policy, std::size_t num_files);

// Rows that were recorded under `key`, with the predictions that the files have now.
[[nodiscard]] std::vector<ThroughputRow> recorded_times(const RunDb& db, const std::string& key,
                                                        const std::vector<TimedFile>& files);

// What is timed and how: files, lengths, text, engine of this version, machine; not the
// predictions. `contents`: model_content_key() of each file, which reads all of it.
void add_timing_to_key(KeyBuilder& key, const std::vector<TimedFile>& files,
                       const std::vector<std::string>& contents, const Scenario& scenario,
                       const TokenPart& text, const TimedEngine& engine,
                       const std::string& engine_version);

}  // namespace puzzle
