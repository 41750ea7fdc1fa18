// A recipe's options as JSON, and which of them differ from the defaults.
#pragma once

#include <set>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/base/options.h"

namespace puzzle {

// [{"name": "score.num_tokens", "value": 8192, "range": [256, 1073741824] or "choices": […],
//   "help": "…"}, …] in the order of declaration.
[[nodiscard]] nlohmann::json options_json(const OptionList& list);

// The values alone, nested by section as in a recipe: {"model": "…", "score": {"num_tokens": …}}.
[[nodiscard]] nlohmann::json config_json(const OptionList& list);

// Names of the options whose values differ between two visits of the same struct.
[[nodiscard]] std::set<std::string> changed_options(const OptionList& list,
                                                    const OptionList& defaults);

}  // namespace puzzle
