// A Hugging Face folder in the real transformers, run by the Python that has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace puzzle {

struct TransformersLogits {
  std::string engine;  // "transformers 4.57.6"
  std::int64_t vocab_size = 0;
  std::vector<float> values;  // [all tokens of all sequences, vocabulary], row major
};

// Runs the folder (with its own code, if it brings any) in float32 on the CPU; each sequence by
// itself. Takes what loading takes and the memory of weights and logits. `python` empty: the
// build's own. Throws Error(kIo): no Python, no transformers in it, not done in `time_limit_s`;
// Error(kFormat): transformers does not load the folder, or leaves tensors out.
[[nodiscard]] TransformersLogits transformers_logits(
    const std::filesystem::path& folder, const std::vector<std::vector<std::int32_t>>& sequences,
    const std::string& python = "", double time_limit_s = 900.0);

}  // namespace puzzle
