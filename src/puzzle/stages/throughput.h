// Stage `throughput`: what an exported file really does in llama.cpp, next to what was predicted,
// and how good the quantised file is that was timed.
//
// Quality is measured twice, for llama.cpp gives whole distributions only at a price:
//   task "quantised file": everything up to the final norm is computed by llama.cpp from the file
//     (its kernels, its quantised activations); logits are these hidden states times the file's
//     head, dequantised, in fp32, where llama.cpp would round the hidden states to 8 bits once
//     more. At the speed of prefill, exact KL: "loss", and for other files than the first "kl"
//     (first file ‖ file), "top1" (agreement with it), "loss_minus_parent".
//   task "quantised file, llama.cpp's log-probabilities": "loss" and "loss_minus_parent" of what
//     llama.cpp itself says each next token's log-probability is; one generation step per token.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/arch/scenario.h"
#include "puzzle/data/token_split.h"
#include "puzzle/engine/timed_engine.h"
#include "puzzle/stages/run_context.h"
#include "puzzle/stages/timed_files.h"

namespace puzzle {

class OptionList;

struct ThroughputOptions {
  bool enabled = true;
  std::int64_t quality_tokens = 2048;  // of the test part, by hidden states; 0 = none
  std::int64_t log_prob_tokens = 512;  // of the test part, by llama.cpp's own; 0 = none

  void visit(OptionList& list);
};

// Times every file (time_files()) and records ThroughputRows; then EvaluationRows of the tasks
// above. Throws Error(kIo) if llama.cpp cannot be run.
void measure_throughput(RunContext& context, const std::vector<TimedFile>& files,
                        const Scenario& scenario, const TokenPart& test,
                        const ThroughputOptions& options, const TimedEngine& engine);

}  // namespace puzzle
