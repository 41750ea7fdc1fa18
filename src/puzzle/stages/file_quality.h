// How good GGUF files are in llama.cpp; see throughput.h for what the rows say.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "puzzle/data/token_split.h"
#include "puzzle/engine/llama_server_options.h"
#include "puzzle/results/rows.h"

namespace puzzle {

struct JudgedFile {
  std::string model;  // ModelRow::name
  std::filesystem::path file;
  std::string key;  // of its rows
};

// The first file is the one that the others are compared with. Standard errors are over windows.
// Throw Error(kIo) if llama.cpp cannot be run.
[[nodiscard]] std::vector<EvaluationRow> hidden_state_quality(const std::vector<JudgedFile>& files,
                                                              const TokenPart& part,
                                                              const LlamaServerOptions& server);
[[nodiscard]] std::vector<EvaluationRow> log_prob_quality(const std::vector<JudgedFile>& files,
                                                          const TokenPart& part,
                                                          const LlamaServerOptions& server);

}  // namespace puzzle
