#include "puzzle/data/haystack.h"

#include <algorithm>

#include "puzzle/base/error.h"
#include "puzzle/base/file.h"
#include "puzzle/base/strings.h"

namespace puzzle {

Haystack::Haystack()
    : sentences_({"The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.",
                  "There and back again."}) {}

Haystack::Haystack(const std::filesystem::path& file) {
  // Longer ones, mostly tables and the like, would make the length of a text too coarse.
  constexpr std::size_t kLongestSentence = 300;
  std::string sentence;
  const auto finish = [&] {
    const std::string_view body = trim(sentence);
    if (!body.empty() && body.size() <= kLongestSentence) {
      sentences_.emplace_back(body);
    }
    sentence.clear();
  };
  for (const char byte : read_text_file(file)) {
    const bool is_space = byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
    if (!is_space) {
      sentence += byte;
      continue;
    }
    const bool ends =
        !sentence.empty() && std::string_view(".!?").find(sentence.back()) != std::string::npos;
    if (ends) {
      finish();
    } else if (!sentence.empty() && sentence.back() != ' ') {
      sentence += ' ';
    }
  }
  finish();
  if (sentences_.empty()) {
    fail(ErrorKind::kFormat, "{}: no sentences of at most {} bytes that end in '.', '!' or '?'",
         file.string(), kLongestSentence);
  }
}

bool Haystack::holds(std::string_view text) const {
  return std::any_of(sentences_.begin(), sentences_.end(), [&](const std::string& sentence) {
    return sentence.find(text) != std::string::npos;
  });
}

}  // namespace puzzle
