// Token files made from texts written on the spot.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "data/toy_tokenizer.h"
#include "puzzle/base/file.h"
#include "puzzle/data/data_options.h"
#include "puzzle/data/token_file.h"
#include "support/temp_dir.h"

namespace puzzle::test {

using Documents = std::vector<std::string>;

// One .jsonl per source with these documents as they are; no separators.
struct ToyCorpus {
  TempDir folder;
  DataOptions options;

  explicit ToyCorpus(const std::vector<Documents>& sources, const std::string& weights = "") {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      std::string lines;
      for (const std::string& document : sources[i]) {
        lines += R"({"text": ")" + document + "\"}\n";
      }
      const std::filesystem::path path = folder / ("source-" + std::to_string(i) + ".jsonl");
      write_text_file(path, lines);
      options.sources.push_back(path.string() +
                                (weights.empty() ? "" : "@" + std::string(1, weights[i])));
    }
    options.document_end = "none";
  }

  [[nodiscard]] std::shared_ptr<const TokenFile> load() const {
    return load_token_file(folder / "cache", options, ToyTokenizer());
  }
};

// Documents of `document` times `letter` (the last may be shorter), `count` in all.
inline Documents toy_documents(char letter, std::int64_t count, std::int64_t document) {
  Documents documents;
  for (std::int64_t i = 0; i < count; i += document) {
    documents.emplace_back(static_cast<std::size_t>(std::min(document, count - i)), letter);
  }
  return documents;
}

}  // namespace puzzle::test
