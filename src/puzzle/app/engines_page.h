// docs/engines.md: what becomes of a child in every export format, and who reads it.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

namespace puzzle {

// Markdown. The tables come from arch/engine_table.h; what is said of real engines is written by
// hand.
[[nodiscard]] std::string engines_page();

// The cells of the tables: [{"model", "attention", "ffn", "position", "format", "kind", "words"}].
[[nodiscard]] nlohmann::json engines_json();

}  // namespace puzzle
