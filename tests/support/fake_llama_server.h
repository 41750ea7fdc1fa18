// A program that takes a llama-server's arguments and answers without a model
// (tests/engine/fake_llama_server.py).
#pragma once

#include <filesystem>
#include <string>

#include <fmt/format.h>
#include <sys/stat.h>

#include "puzzle/arch/model_spec.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"

namespace puzzle::test {

// `mode`: how it behaves; bodies of requests are added to the file `requests`.
inline void write_fake_llama_server(const std::filesystem::path& program, const std::string& mode,
                                    const std::filesystem::path& requests) {
  const std::string python = find_program(PUZZLE_PYTHON) ? PUZZLE_PYTHON : "python3";
  write_text_file(program, fmt::format("#!/bin/sh\nexec '{}' -S '{}' {} '{}' \"$@\"\n", python,
                                       PUZZLE_SOURCE_DIR "/tests/engine/fake_llama_server.py", mode,
                                       requests.string()));
  ::chmod(program.c_str(), 0755);
}

// Seconds per token in the modes "stacks…"; the script has the same numbers in milliseconds.
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

}  // namespace puzzle::test
