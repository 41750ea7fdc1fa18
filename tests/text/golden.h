// The small tokenizers under tests/golden and the ids that Hugging Face's code gives for them
// (tests/golden/make_tokenizer_golden.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "puzzle/base/file.h"

namespace puzzle::test {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(PUZZLE_SOURCE_DIR) / "tests/golden";
}

inline std::filesystem::path golden_tokenizer(const std::string& name) {
  return golden_folder() / ("tokenizer_" + name);
}

inline const nlohmann::json& tokenizer_golden() {
  static const nlohmann::json golden =
      nlohmann::json::parse(read_text_file(golden_folder() / "tokenizer_ids.json"));
  return golden;
}

inline std::vector<std::string> golden_texts() {
  return tokenizer_golden()["texts"].get<std::vector<std::string>>();
}

using GoldenIds = std::vector<std::vector<std::int32_t>>;

inline GoldenIds golden_ids(const std::string& name) {
  return tokenizer_golden()[name]["ids"].get<GoldenIds>();
}

}  // namespace puzzle::test
