#include "puzzle/text/gguf_pre.h"

#include <algorithm>
#include <array>
#include <string>

#include "puzzle/text/pattern.h"

namespace puzzle {
namespace {

constexpr std::array kGgufPreTokenizers = std::to_array<GgufPreTokenizer>({
    {.name = "gpt-2", .pattern = "gpt-2"},
    {.name = "default", .pattern = "gpt-2"},
    {.name = "olmo", .pattern = "gpt-2"},
    {.name = "phi-2", .pattern = "gpt-2"},
    {.name = "smollm", .digits_first = true, .pattern = "gpt-2"},
    {.name = "starcoder", .digits_first = true, .pattern = "gpt-2"},
    {.name = "refact", .digits_first = true, .pattern = "gpt-2"},
    {.name = "llama-bpe", .pattern = "llama-3", .ignore_merges = true, .adds_bos = true},
    {.name = "llama3", .pattern = "llama-3", .ignore_merges = true, .adds_bos = true},
    {.name = "llama-v3", .pattern = "llama-3", .ignore_merges = true, .adds_bos = true},
    {.name = "falcon3", .pattern = "llama-3", .ignore_merges = true, .adds_bos = true},
    {.name = "dbrx", .pattern = "llama-3"},
    {.name = "smaug-bpe", .pattern = "llama-3"},
    {.name = "qwen2", .pattern = "qwen-2", .nfc = true},
    {.name = "deepseek-r1-qwen", .pattern = "qwen-2", .nfc = true},
    {.name = "stablelm2", .pattern = "qwen-2"},
    {.name = "tekken", .pattern = "tekken", .ignore_merges = true, .adds_bos = true},
    {.name = "gpt-4o", .pattern = "gpt-4o"},
    {.name = "llama4", .pattern = "gpt-4o"},
});

// What a list of pre-tokenizer steps amounts to, if it is one that llama.cpp has.
struct PreTokenizerShape {
  bool digits_first = false;
  std::string_view regex;
};

std::optional<PreTokenizerShape> shape_of(const std::vector<PreTokenizerStep>& steps) {
  PreTokenizerShape shape;
  std::size_t at = 0;
  if (at < steps.size() && std::holds_alternative<DigitsStep>(steps[at])) {
    if (!std::get<DigitsStep>(steps[at]).individual) {
      return std::nullopt;
    }
    shape.digits_first = true;
    ++at;
  }
  if (at < steps.size() && std::holds_alternative<SplitStep>(steps[at])) {
    const auto& split = std::get<SplitStep>(steps[at]);
    // The patterns match every character, so that these behaviours mean the same.
    const bool cuts_at_matches = (split.behavior == SplitBehavior::kIsolated && !split.invert) ||
                                 (split.behavior == SplitBehavior::kRemoved && split.invert);
    if (!split.is_regex || !cuts_at_matches) {
      return std::nullopt;
    }
    shape.regex = split.pattern;
    ++at;
  }
  if (at + 1 != steps.size() || !std::holds_alternative<ByteLevelStep>(steps[at])) {
    return std::nullopt;
  }
  const auto& byte_level = std::get<ByteLevelStep>(steps[at]);
  if (byte_level.add_prefix_space || byte_level.use_regex != shape.regex.empty()) {
    return std::nullopt;
  }
  if (byte_level.use_regex) {
    shape.regex = known_pattern("gpt-2");
  }
  return shape;
}

bool only_normalizes_to_nfc(const std::vector<NormalizerStep>& steps) {
  return std::all_of(steps.begin(), steps.end(), [](const NormalizerStep& step) {
    const auto* unicode = std::get_if<UnicodeNormalizer>(&step);
    return unicode != nullptr && unicode->form == NormalForm::kNfc;
  });
}

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() { return kGgufPreTokenizers; }

std::vector<NormalizerStep> normalizer_of(const GgufPreTokenizer& pre) {
  std::vector<NormalizerStep> steps;
  if (pre.nfc) {
    steps.emplace_back(UnicodeNormalizer{NormalForm::kNfc});
  }
  return steps;
}

std::vector<PreTokenizerStep> steps_of(const GgufPreTokenizer& pre) {
  std::vector<PreTokenizerStep> steps;
  if (pre.digits_first) {
    steps.emplace_back(DigitsStep{.individual = true});
  }
  const bool is_gpt2 = pre.pattern == "gpt-2";
  if (!is_gpt2) {
    steps.emplace_back(
        SplitStep{.pattern = std::string(known_pattern(pre.pattern)), .is_regex = true});
  }
  steps.emplace_back(ByteLevelStep{.add_prefix_space = false, .use_regex = is_gpt2});
  return steps;
}

const GgufPreTokenizer* find_gguf_pre(const TokenizerSpec& spec) {
  const std::optional<PreTokenizerShape> shape = shape_of(spec.pre_tokenizer);
  const bool nfc = !spec.normalizer.empty();
  if (!shape || !only_normalizes_to_nfc(spec.normalizer)) {
    return nullptr;
  }
  for (const GgufPreTokenizer& pre : kGgufPreTokenizers) {
    if (pre.digits_first == shape->digits_first && known_pattern(pre.pattern) == shape->regex &&
        pre.ignore_merges == spec.ignore_merges && pre.nfc == nfc) {
      return &pre;
    }
  }
  return nullptr;
}

}  // namespace puzzle
