// Data that is not part of the project: PUZZLE_DATA, or ../shared/data beside the checkout.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

namespace puzzle::test {

inline std::filesystem::path shared_data(const std::string& name) {
  const char* folder = std::getenv("PUZZLE_DATA");
  const std::filesystem::path root =
      folder != nullptr ? std::filesystem::path(folder)
                        : std::filesystem::path(PUZZLE_SOURCE_DIR) / "../shared/data";
  return root / name;
}

// The real parent, fetched by tools/setup.sh.
inline std::filesystem::path parent_gguf() {
  return std::filesystem::path(PUZZLE_SOURCE_DIR) / ".cache/SmolLM2-135M-Instruct.Q4_1.gguf";
}

// A published tokenizer.json by model ("qwen3"), fetched by tools/setup.sh --with-tokenizers.
inline std::filesystem::path real_tokenizer(const std::string& model) {
  const std::filesystem::path shared = shared_data("tokenizers/" + model + "/tokenizer.json");
  return std::filesystem::exists(shared) ? shared
                                         : std::filesystem::path(PUZZLE_SOURCE_DIR) /
                                               ".cache/tokenizers" / model / "tokenizer.json";
}

}  // namespace puzzle::test

#define PUZZLE_REQUIRE_FILE(file)                                            \
  if (!std::filesystem::exists(file)) {                                      \
    GTEST_SKIP() << std::filesystem::path(file).string() << " is not there"; \
  }                                                                          \
  static_assert(true, "needs a semicolon")
