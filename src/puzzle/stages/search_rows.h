// Answers of the search as rows of run.db, and back.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/results/run_db.h"
#include "puzzle/stages/search.h"

namespace puzzle {

// The rows and the stage record in one transaction; the rows become the current ones.
void record_search(RunDb& db, const SearchResult& result, const std::string& method,
                   double seconds);

// What an earlier search of this key found, made current; empty if there was none.
[[nodiscard]] std::optional<SearchResult> find_search(RunDb& db, const std::string& key);

// For other ranks.
[[nodiscard]] nlohmann::json search_json(const SearchResult& result);
[[nodiscard]] SearchResult parse_search(const nlohmann::json& json);

}  // namespace puzzle
