// `puzzle export --check`: what exported files compute in the engines they are for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/data/token_split.h"
#include "puzzle/engine/llama_server_options.h"
#include "puzzle/formats/dtype.h"
#include "puzzle/stages/export_child.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// Between two programs that compute one model, over some tokens.
struct LogProbDifference {
  double largest = 0.0;  // |difference| of log-probabilities, nats, over tokens and vocabulary
  double kl = 0.0;       // from the native distribution, mean over tokens, nats

  // False for a NaN.
  [[nodiscard]] bool is_within(const LogProbDifference& limit) const {
    return largest <= limit.largest && kl <= limit.kl;
  }
};

// What rounding explains. llama.cpp rounds what it multiplies with a matrix to the matrix's kind:
// to halves for F16 and BF16, to 8 bits for block types. Three times and more what SmolLM2-135M
// shows on the worse of two texts: the largest difference, that of some improbable token, is five
// times as large on one as on the other.
[[nodiscard]] LogProbDifference expected_difference(DType matrix);

struct ExportCheck {
  std::string file;    // below exports/
  std::string type;    // of its matrices, "Q4_K"
  std::string engine;  // "xllamacpp 0.2.1"; empty where it did not run
  std::int64_t tokens = 0;
  LogProbDifference found;
  LogProbDifference expected;
  std::string problem;     // why it did not run
  bool has_engine = true;  // false: no engine that this program runs reads the format

  [[nodiscard]] bool agrees() const { return problem.empty() && found.is_within(expected); }
};

// Every file or folder of `exported` in llama.cpp or transformers, on the same few stretches of
// `text` (drawn by the seed; a sentence of our own where the part is empty), against the native
// decoder on the child's weights rounded as the file stores them. llama.cpp runs with an F32 cache
// and without flash attention, transformers in float32. An engine that is missing, or that does not
// run the file, is a `problem`.
[[nodiscard]] std::vector<ExportCheck> check_exports(
    const RunContext& context, const LoadedModel& parent, const ModelWeights& child,
    const ExportResult& exported, const ExportOptions& options, const TokenPart& text,
    const LlamaServerOptions& server);

// One line per file, for people.
[[nodiscard]] std::string export_checks_text(const std::vector<ExportCheck>& checks);
[[nodiscard]] nlohmann::json export_checks_json(const std::vector<ExportCheck>& checks);

// Throws Error(kIo) naming what could not be run, Error(kFormat) naming what differs too much.
// Formats without an engine are let pass.
void require_agreement(const std::vector<ExportCheck>& checks);

}  // namespace puzzle
