// Text from a parent or child, with the KV cache of the native decoder.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "puzzle/stages/run_context.h"

namespace puzzle {

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  double temperature = 0.0;  // 0 = greedy
  double top_p = 1.0;        // smallest set of tokens with this much probability; 1 = all
  std::uint64_t seed = 0;
  bool adds_special = true;  // BOS before the prompt, where the tokenizer does so
};

struct GenerateResult {
  std::string text;  // what was generated, without the prompt
  std::int64_t prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
  double prefill_s = 0.0;
  double generation_s = 0.0;
};

// Stops at an end-of-text token or after max_tokens; `on_text` gets each piece as it comes. Throws
// Error(kUsage) for an empty prompt or one that leaves no room in the context.
[[nodiscard]] GenerateResult generate(const LoadedModel& model, const std::string& prompt,
                                      const GenerateOptions& options,
                                      const std::function<void(const std::string&)>& on_text);

// A user's turn and the assistant's opening, as the model's own chat template writes them; encode
// it without adding BOS (adds_special = false). Throws Error(kUsage) for a model without a
// template, and as render_chat (engine/chat_template.h).
[[nodiscard]] std::string chat_prompt(const Tokenizer& tokenizer, const std::string& user_text);

}  // namespace puzzle
