// A whole run small enough for tests: a tiny random parent with a real tokenizer, the project's own
// pages as corpus, and what two equal runs share.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/hf_config.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/json.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/results/run_db.h"
#include "support/run_program.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace puzzle::test {

inline const std::filesystem::path kSource = PUZZLE_SOURCE_DIR;

// folder/parent (Hugging Face) and folder/corpus; the vocabulary becomes the tokenizer's.
inline void make_run_inputs(const std::filesystem::path& folder, ModelSpec spec = tiny_spec(3)) {
  namespace fs = std::filesystem;
  const Json tokenizer = load_json(kSource / "tests/golden/tokenizer_gpt2/tokenizer.json");
  std::int64_t vocab = 0;
  for (const auto& [piece, id] : tokenizer.at("model").at("vocab").items()) {
    vocab = std::max(vocab, id.get<std::int64_t>() + 1);
  }
  for (const Json& token : tokenizer.at("added_tokens")) {
    vocab = std::max(vocab, token.at("id").get<std::int64_t>() + 1);
  }
  spec.vocab_size = vocab;
  make_folder(folder / "parent");
  save_weights(folder / "parent/model.safetensors", random_model(spec, 11), at::kFloat, {});
  save_json(folder / "parent/config.json", make_nemotron_nas_config(spec, "float32"));
  write_text_file(folder / "parent/README.md", "---\nlicense: mit\n---\n# Tiny\n");
  for (const auto& file : fs::directory_iterator(kSource / "tests/golden/tokenizer_gpt2")) {
    fs::copy(file.path(), folder / "parent");
  }
  make_folder(folder / "corpus");
  fs::copy(kSource / "LICENSE", folder / "corpus/license.txt");
  fs::copy(kSource / "docs/architecture.md", folder / "corpus/architecture.txt");
  fs::copy(kSource / "docs/formats.md", folder / "corpus/formats.txt");
}

inline void add_settings(std::vector<std::string>& words,
                         const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    words.insert(words.end(), {"--set", setting});
  }
}

// Costs come from a description of a machine, so that nothing depends on time.
inline std::vector<std::string> run_arguments(const std::string& verb,
                                              const std::filesystem::path& inputs,
                                              const std::filesystem::path& run,
                                              const std::string& target = "roofline") {
  std::vector<std::string> words = {verb,       (inputs / "parent").string(),
                                    "--corpus", (inputs / "corpus").string(),
                                    "--run",    run.string(),
                                    "--target", target,
                                    "--budget", "parameters <= 0.9x"};
  add_settings(
      words, {"data.window=32", "data.group_windows=2", "data.calibration_tokens=1024",
              "data.scoring_tokens=512", "data.validation_tokens=512", "data.test_tokens=512",
              "data.train_tokens=2048", "scenario.prompt_tokens=32", "scenario.generated_tokens=32",
              "search.types=f32", "search.rounds=0", "search.local_forwards=0",
              "export_child.types=f32", "export_child.formats=[gguf, hf]", "threads=2"});
  if (target == "roofline") {
    add_settings(words, {"measure.hardware.preset=cpu", "measure.types=f32"});
  }
  return words;
}

// For runs that distil blocks and child.
inline void add_training(std::vector<std::string>& words) {
  add_settings(words, {"distill_blocks.num_tokens=512", "distill_child.num_tokens=1024",
                       "distill_child.batch_windows=4", "distill_child.validate_every=2",
                       "distill_child.save_every_s=0.01"});
}

// Everything that two equal runs share: rows of every table without times and memory, and the bytes
// of all files of the library, the children and the exports.
inline Json fingerprint(const std::filesystem::path& run) {
  namespace fs = std::filesystem;
  Json result;
  Json& db = result["db"] =
      RunDb(run / "run.db", RunDbMode::kRead).dump_json({.times = false, .rows = RowSet::kCurrent});
  db.erase("meta");  // commands and folders differ
  for (Json& stage : db.at("stages")) {
    stage.at("detail").erase("peak_memory_bytes");
  }
  for (const char* part : {"library", "children/child", "exports"}) {
    for (const auto& entry : fs::recursive_directory_iterator(run / part)) {
      if (entry.is_regular_file()) {
        result["files"][fs::relative(entry.path(), run).string()] = hash_file(entry.path());
      }
    }
  }
  return result;
}

}  // namespace puzzle::test
