// Stage `scenarios`: parent and child in llama.cpp over a table of workloads, measured beside what
// the sub-blocks' times predict (the paper's scenario table, P 4, and its TensorRT-LLM runs).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/stages/measure.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct ScenarioTableOptions {
  bool enabled = false;
  // "prompt/generated" tokens; the paper's: chat, two of text generation, one of long reasoning,
  // summaries or retrieval, and both long.
  std::vector<std::string> lengths = {"128/128",  "128/1024", "128/2048",
                                      "128/4096", "2048/128", "2048/2048"};
  std::vector<std::int64_t> batch = {1};
  bool predict = true;

  void visit(OptionList& list);

  // Every batch at every length, lengths first. Throws Error(kUsage) for a text that is no pair of
  // lengths.
  [[nodiscard]] std::vector<Workload> workloads() const;
  // Tokens of the longest sequence. Throws as workloads().
  [[nodiscard]] std::int64_t longest() const;
};

// An exported file and what it is made of.
struct ScenarioModel {
  std::string name;            // ModelRow::name: "parent", "child"
  std::filesystem::path file;  // a .gguf
  Architecture layers;
};

// Prompt lengths at which sub-blocks are timed for these workloads: each prompt's, and where the
// longest sequence is well beyond them its own.
[[nodiscard]] std::vector<std::int64_t> predicted_contexts(const std::vector<Workload>& workloads);
// Steps behind each of them, at least `least`: reading a long prompt leaves time for few samples,
// so that each has to say more of a step.
[[nodiscard]] std::int64_t predicted_steps(const std::vector<Workload>& workloads,
                                           std::int64_t least);

// Times the models' own sub-blocks in llama-server with `measure_options` (engine and contexts are
// ours, and so are steps where prompts are long), if predictions are asked for, then the files at
// every workload, and records ThroughputRows. A workload that is recorded is not timed again, so a
// killed table goes on. Files whose types are not those of `measure_options` are not predicted.
// Throws Error(kIo) if llama.cpp cannot be run.
void measure_scenarios(RunContext& context, const LoadedModel& parent,
                       const std::vector<ScenarioModel>& models, const TokenPart& text,
                       const Scenario& scenario, const ScenarioTableOptions& options,
                       MeasureOptions measure_options, const TimedEngine& engine);

}  // namespace puzzle
