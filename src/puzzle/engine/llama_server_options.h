// How a llama.cpp server is found and started; see llama_server.h.
#pragma once

#include <cstdint>
#include <string>

namespace puzzle {

class KeyBuilder;
class OptionList;

// With an f32 cache and flash_attention off, an F32 file gives transformers' log-probabilities to
// 1e-5; with llama.cpp's defaults single ones differ by up to 5e-3, since queries, keys and values
// are halves.
struct LlamaServerOptions {
  std::string program;  // name or path of a llama-server; "xllamacpp": the Python package; empty:
                        // llama-server from PATH if there is one, else the Python package
  std::string python;   // interpreter that has xllamacpp; empty: the build's own
  std::int64_t threads = 0;            // 0: all cores this process may use
  std::int64_t context_tokens = 2048;  // per slot
  std::int64_t parallel = 1;           // slots: sequences that run at once
  std::int64_t gpu_layers = -1;        // layers on the GPU; -1: the server decides
  std::string cache_type = "f16";  // of the KV cache: f16, f32, bf16, q8_0; Scenario::cache_type
  std::string flash_attention = "auto";  // auto, on, off
  std::int64_t port = 0;                 // on 127.0.0.1; 0: a free one
  double start_timeout_s = 120.0;
  double request_timeout_s = 900.0;
  std::string log_file;  // keeps the server's output; empty: kept in memory only

  void visit(OptionList& list);
};

// What changes times or results: not ports, time limits and files. The program counts by its
// version, find_llama_server_version().
void add_to_key(KeyBuilder& key, const LlamaServerOptions& options);

// For the `index`-th of several servers at once: the next ports and a log file of its own. Throws
// Error(kUsage) where the ports run out.
[[nodiscard]] LlamaServerOptions numbered_server(const LlamaServerOptions& options,
                                                 std::int64_t index);

// How the server is started: llama.cpp serves either completions or embeddings.
enum class LlamaServerMode { kCompletions, kHiddenStates };

}  // namespace puzzle
