// A real llama.cpp: starts `llama-server`, or the same server inside the Python package xllamacpp,
// on a GGUF file and asks it over HTTP for completions, timings, log-probabilities and hidden
// states.
//
// With several threads llama.cpp spins while it waits: beside another busy process its times can be
// a hundred times too long. Time on a quiet machine, or with one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "puzzle/base/json.h"
#include "puzzle/engine/llama_server_options.h"

namespace puzzle {

struct Completion {
  std::vector<std::int32_t> tokens;  // generated
  std::int64_t prompt_tokens = 0;    // evaluated, i.e. not taken from the cache
  double prompt_s = 0.0;             // start of the prompt to the first generated token
  double generation_s = 0.0;         // first generated token to the last: tokens.size() - 1 steps

  // Mean of the steps; 0 with fewer than two tokens.
  [[nodiscard]] double step_s() const;
};

// b sequences that started together, in one batch.
struct BatchCompletion {
  std::vector<Completion> sequences;
  double wall_s = 0.0;  // of the request, HTTP included

  [[nodiscard]] double prompt_s() const;  // until every sequence has its first token
  [[nodiscard]] double step_s() const;    // mean step of the slowest sequence
};

struct CompletionOptions {
  std::int64_t num_tokens = 1;  // generated exactly, greedily; end-of-text tokens are not chosen
  bool reuse_cached_prompt =
      false;  // take a common prefix from the slot's cache instead of evaluating it
};

// The next token's distribution at one position, as far as it was asked for.
struct TokenScore {
  double log_prob = 0.0;        // of the token that does stand there; natural logarithm
  std::int32_t top_token = -1;  // the most probable one
  std::vector<std::pair<std::int32_t, double>>
      top;  // token, log-probability; falling, num_top of them
};

struct HiddenStates {
  std::int64_t num_tokens = 0;  // T
  std::int64_t width = 0;       // D
  std::vector<float> values;    // [T, D], row major, after the final norm
};

// "llama-server 6000 (abcdef)" or "xllamacpp 0.2.1", for keys and reports; asks the program, which
// takes some tenths of a second. Throws Error(kIo) where there is no program.
[[nodiscard]] std::string find_llama_server_version(const LlamaServerOptions& options);

// One server process, killed with everything it started when the object goes, and by the kernel
// when our process dies, however it dies. The kernel takes the thread that constructed the object
// for our process: construct it on one that lives as long. Calls are blocking; const calls may come
// from several threads.
//
// Every call throws Error(kIo) when the server dies (quoting its last log lines), hangs past the
// time limit, or answers anything but what it should; Error(kInterrupted) on SIGINT/SIGTERM while
// waiting.
class LlamaServer {
 public:
  // Returns when the server is ready. Throws Error(kIo): program not found (with the pip package to
  // install), model refused, not ready in time.
  LlamaServer(const std::filesystem::path& model, const LlamaServerOptions& options,
              LlamaServerMode mode = LlamaServerMode::kCompletions);
  ~LlamaServer();
  LlamaServer(const LlamaServer&) = delete;
  LlamaServer& operator=(const LlamaServer&) = delete;

  // kCompletions
  // --------------------------------------------------------------------------------------

  [[nodiscard]] Completion complete(std::span<const std::int32_t> prompt,
                                    const CompletionOptions& options) const;
  // At most `parallel` prompts, in one request: the server starts them together. With prompts of
  // one length every sequence is in the same phase throughout.
  [[nodiscard]] BatchCompletion complete_batch(
      const std::vector<std::vector<std::int32_t>>& prompts,
      const CompletionOptions& options) const;

  // Teacher forcing, all in llama.cpp: the score of tokens[t] given tokens[0 … t-1] for t = first …
  // T-1 (first >= 1). llama-server has no such call, so each position is a request of its own whose
  // bias forces the wanted token, while the cache holds what came before; log-probabilities are
  // taken before the bias. Costs one generation step per token (SmolLM2-135M, 2 threads: 10 to 16
  // ms), plus 1 ms per hundred of num_top.
  [[nodiscard]] std::vector<TokenScore> score_tokens(std::span<const std::int32_t> tokens,
                                                     std::int64_t first = 1,
                                                     std::int64_t num_top = 1) const;
  // log p(tokens[t] | tokens[0 … t-1]) for t = 1 … T-1.
  [[nodiscard]] std::vector<double> token_log_probs(std::span<const std::int32_t> tokens) const;

  // kHiddenStates
  // -------------------------------------------------------------------------------------

  // What the head is applied to, at the speed of prefill (SmolLM2-135M: 5 ms a token): logits are
  // values · headᵀ with the head read from the same file, which gives whole distributions and so an
  // exact KL. At most context_tokens tokens.
  [[nodiscard]] HiddenStates hidden_states(std::span<const std::int32_t> tokens) const;

  // -----------------------------------------------------------------------------------------------------

  [[nodiscard]] std::int64_t port() const { return port_; }
  [[nodiscard]] std::int64_t process_id() const;
  // The last lines that the server printed.
  [[nodiscard]] std::string log_tail(std::int64_t lines = 12) const;

 private:
  struct Process;
  class Scorer;

  void wait_until_ready(double timeout_s);
  void check_model(const std::filesystem::path& model) const;
  void check_alive() const;
  void check_alive_for_a_while() const;
  void check_call(LlamaServerMode mode, std::int64_t tokens) const;
  [[nodiscard]] Json request(std::string_view method, const std::string& path,
                             const std::string& body) const;

  LlamaServerOptions options_;
  LlamaServerMode mode_;
  std::string place_;  // "llama-server on model.gguf"
  std::int64_t port_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace puzzle
