// Text to hide something in.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace puzzle {

// The filler around needles, by sentences.
class Haystack {
 public:
  // RULER's noise: five sentences, over and over.
  Haystack();
  // The sentences of a text file. Throws Error(kIo), and Error(kFormat) for a text without any.
  explicit Haystack(const std::filesystem::path& file);

  [[nodiscard]] const std::vector<std::string>& sentences() const { return sentences_; }
  [[nodiscard]] bool holds(std::string_view text) const;

 private:
  std::vector<std::string> sentences_;
};

}  // namespace puzzle
