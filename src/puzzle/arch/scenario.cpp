#include "puzzle/arch/scenario.h"

#include <map>
#include <string>

#include "puzzle/base/error.h"
#include "puzzle/base/options.h"

namespace puzzle {
namespace {

const std::map<std::string, DType>& cache_types() {
  static const std::map<std::string, DType> kTypes = {{"f16", DType::kF16},
                                                      {"f32", DType::kF32},
                                                      {"bf16", DType::kBF16},
                                                      {"q8_0", DType::kQ8_0},
                                                      {"fp8", DType::kF8E4M3}};
  return kTypes;
}

}  // namespace

DType Scenario::cache_dtype() const {
  const auto found = cache_types().find(cache_type);
  if (found == cache_types().end()) {
    fail(ErrorKind::kUsage, "scenario.cache_type: '{}', expected f16, f32, bf16, q8_0 or fp8",
         cache_type);
  }
  return found->second;
}

void Scenario::visit(OptionList& list) {
  constexpr std::int64_t kMaxTokens = 1 << 20;
  constexpr std::int64_t kMaxBatch = 1 << 16;
  list.add("prompt_tokens", prompt_tokens, Range<std::int64_t>{1, kMaxTokens},
           "Tokens of the prompt, per sequence.");
  list.add("generated_tokens", generated_tokens, Range<std::int64_t>{1, kMaxTokens},
           "Tokens generated, per sequence; the first comes out of the prompt's pass.");
  list.add("batch", batch, Range<std::int64_t>{1, kMaxBatch},
           "Batch sizes the search may choose from.");
  list.add("cache_type", cache_type, Choices{{"f16", "f32", "bf16", "q8_0", "fp8"}},
           "Type of the KV cache, in the engine and for its memory; llama.cpp has no fp8.");
}

}  // namespace puzzle
