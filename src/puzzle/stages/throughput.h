// Stage `throughput`: what an exported file really does in llama.cpp, next to what was predicted,
// and how good the quantised file is that was timed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/data/token_split.h"
#include "puzzle/engine/cost_model.h"
#include "puzzle/engine/llama_server_options.h"
#include "puzzle/engine/timing.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

class OptionList;

struct ThroughputOptions {
  bool enabled = true;
  std::int64_t quality_tokens = 2048;  // of the test part, for the quantised files; 0 = none
  TimingPolicy timing;
  LlamaServerOptions llama_server;

  void visit(OptionList& list);
};

struct TimedFile {
  std::string model;                     // ModelRow::name: "parent", "child", …
  std::filesystem::path file;            // a .gguf
  std::optional<Prediction> prediction;  // per batch size chosen
  std::int64_t batch = 1;
};

// Times prefill and generation of every file with the scenario's prompt and generation lengths, the
// files in turn so that drift of a shared machine hits all alike, and records ThroughputRows. Then
// the files' own log-probabilities on test text: EvaluationRows of the task "quantised file" with
// "loss", and for other files than the first "kl" (first file ‖ file), "loss_minus_parent". Throws
// Error(kIo) if llama.cpp cannot be run.
void measure_throughput(RunContext& context, const std::vector<TimedFile>& files,
                        const Scenario& scenario, const TokenPart& test,
                        const ThroughputOptions& options);

}  // namespace puzzle
