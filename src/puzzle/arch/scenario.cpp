#include "puzzle/arch/scenario.h"

#include "puzzle/base/options.h"

namespace puzzle {

void Scenario::visit(OptionList& list) {
  constexpr std::int64_t kMaxTokens = 1 << 20;
  constexpr std::int64_t kMaxBatch = 1 << 16;
  list.add("prompt_tokens", prompt_tokens, Range<std::int64_t>{1, kMaxTokens},
           "Tokens of the prompt, per sequence.");
  list.add("generated_tokens", generated_tokens, Range<std::int64_t>{1, kMaxTokens},
           "Tokens generated, per sequence; the first comes out of the prompt's pass.");
  list.add("batch", batch, Range<std::int64_t>{1, kMaxBatch},
           "Batch sizes the search may choose from.");
}

}  // namespace puzzle
