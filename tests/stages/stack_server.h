// A run with a tiny parent that can be written as a GGUF file, and a made-up llama-server whose
// times follow from the file's layers (tests/engine/fake_llama_server.py, modes "stacks…").
#pragma once

#include <cstdint>
#include <string>

#include <fmt/format.h>
#include <sys/stat.h>

#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"
#include "puzzle/engine/timed_engine.h"
#include "stages/library_run.h"

namespace puzzle::test {

// Seconds per token of the made-up server; the script has the same numbers in milliseconds.
inline double made_up_seconds(const AttentionSpec& attention) {
  switch (attention.kind) {
    case AttentionKind::kGqa:
      return 2e-4 + 1e-4 * static_cast<double>(attention.kv_heads);
    case AttentionKind::kLinear:
      return 1.5e-4;
    case AttentionKind::kNone:
      break;
  }
  return 0.0;
}
inline double made_up_seconds(const FfnSpec& ffn) { return 4e-6 * static_cast<double>(ffn.width); }
inline constexpr double kMadeUpFixedSeconds = 1e-3;
inline double made_up_seconds(const Architecture& layers) {
  double sum = kMadeUpFixedSeconds;
  for (const BlockSpec& block : layers) {
    sum += made_up_seconds(block.attention) + made_up_seconds(block.ffn);
  }
  return sum;
}

struct StackServerRun : LibraryRun {
  StackServerRun() : LibraryRun(spec_with_tokenizer()) {
    parent.path = std::string(PUZZLE_SOURCE_DIR) + "/tests/golden/tokenizer_gpt2";
    SearchSpaceOptions options;
    options.attention = {"parent", "kv1", "linear", "none"};
    options.ffn = {"parent", "0.66", "0.34", "none"};
    space = make_search_space(options, parent.weights.spec);
    use("stacks");
    engine.llama_server.program = program().string();
    engine.llama_server.threads = 1;
    engine.llama_server.context_tokens = 64;
    engine.llama_server.start_timeout_s = 60.0;
    engine.llama_server.request_timeout_s = 60.0;
    engine.timing = {.warmup_calls = 1, .samples = 3, .max_spread = 0.1, .max_rounds = 1};
  }

  // How the server behaves from now on.
  void use(const std::string& mode) const {
    const std::string python = find_program(PUZZLE_PYTHON) ? PUZZLE_PYTHON : "python3";
    write_text_file(program(), fmt::format("#!/bin/sh\nexec '{}' -S '{}' {} '{}' \"$@\"\n", python,
                                           PUZZLE_SOURCE_DIR "/tests/engine/fake_llama_server.py",
                                           mode, requests().string()));
    ::chmod(program().c_str(), 0755);
  }
  [[nodiscard]] std::int64_t num_requests() const {
    if (!std::filesystem::exists(requests())) {
      return 0;
    }
    const std::string text = read_text_file(requests());
    return std::count(text.begin(), text.end(), '\n');
  }

  TimedEngine engine;

 private:
  // As many tokens as the golden tokenizer has.
  static ModelSpec spec_with_tokenizer() {
    ModelSpec spec = tiny_spec(3);
    spec.vocab_size = 702;
    return spec;
  }
  [[nodiscard]] std::filesystem::path program() const { return folder / "fake-llama-server"; }
  [[nodiscard]] std::filesystem::path requests() const { return folder / "requests.jsonl"; }
};

}  // namespace puzzle::test
