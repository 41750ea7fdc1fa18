// A run with a tiny parent that can be written as a GGUF file, and a made-up llama-server whose
// times follow from the file's layers (tests/engine/fake_llama_server.py, modes "stacks…").
#pragma once

#include <cstdint>
#include <string>

#include "puzzle/base/file.h"
#include "puzzle/engine/timed_engine.h"
#include "stages/library_run.h"
#include "support/fake_llama_server.h"

namespace puzzle::test {

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
  void use(const std::string& mode) const { write_fake_llama_server(program(), mode, requests()); }
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
