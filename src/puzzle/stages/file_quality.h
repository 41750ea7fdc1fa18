// How good GGUF files are in llama.cpp; see throughput.h for what the rows say.
#pragma once

#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/engine/llama_server_options.h"
#include "puzzle/results/rows.h"
#include "puzzle/stages/timed_files.h"

namespace puzzle {

// Rows recorded under `key`. The first file is the one that the others are compared with. Standard
// errors are over groups of windows (independent_units()). Throw Error(kIo) if llama.cpp cannot be
// run.
[[nodiscard]] std::vector<EvaluationRow> hidden_state_quality(const std::vector<TimedFile>& files,
                                                              const TokenPart& part,
                                                              const LlamaServerOptions& server,
                                                              const std::string& key);
[[nodiscard]] std::vector<EvaluationRow> log_prob_quality(const std::vector<TimedFile>& files,
                                                          const TokenPart& part,
                                                          const LlamaServerOptions& server,
                                                          const std::string& key);

}  // namespace puzzle
