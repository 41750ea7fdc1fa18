// The normalizer, pre_tokenizer, decoder and post_processor objects of a tokenizer.json, both ways.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/base/json.h"
#include "puzzle/text/tokenizer_spec.h"

namespace puzzle {

// Each takes the member's value (null: none). Throws Error(kFormat), naming the type, for one that
// is not supported; a type is never ignored.
[[nodiscard]] std::vector<NormalizerStep> parse_normalizer(const Json& value,
                                                           const std::string& place);
[[nodiscard]] std::vector<PreTokenizerStep> parse_pre_tokenizer(const Json& value,
                                                                const std::string& place);
[[nodiscard]] DecoderSpec parse_decoder(const Json& value, const std::string& place);

struct TokenTemplate {
  std::vector<std::int32_t> prefix;
  std::vector<std::int32_t> suffix;
};
[[nodiscard]] TokenTemplate parse_post_processor(const Json& value, const std::string& place);

[[nodiscard]] Json normalizer_to_json(const TokenizerSpec& spec);
[[nodiscard]] Json pre_tokenizer_to_json(const TokenizerSpec& spec);
[[nodiscard]] Json decoder_to_json(const TokenizerSpec& spec);
[[nodiscard]] Json post_processor_to_json(const TokenizerSpec& spec);

}  // namespace puzzle
