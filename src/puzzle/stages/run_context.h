// What every stage is handed: where the run lives, who takes part in it, on what it computes.
//
// A stage takes plain options and inputs, returns a plain result, writes only below `folder`, and
// never parses a command line, prints results or exits. Work that is done is recorded in `db` under
// a key of everything it depends on; a stage looks there first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "puzzle/data/token_batches.h"
#include "puzzle/dist/communicator.h"
#include "puzzle/model/decoder.h"
#include "puzzle/model/weights.h"
#include "puzzle/results/run_db.h"
#include "puzzle/text/tokenizer.h"

namespace puzzle {

struct RunContext {
  std::filesystem::path folder;
  RunDb& db;  // rank 0 writes; other ranks read only what rank 0 sends them
  Communicator& communicator;
  c10::Device device{c10::kCPU};
  c10::ScalarType type = c10::ScalarType::Float;  // of weights and activations
  std::int64_t seed = 0;
};

// This rank's share of what all ranks divide.
[[nodiscard]] inline RankShare rank_share(const Communicator& communicator) {
  return {communicator.rank(), communicator.size()};
}

// A model that is loaded once and shared by all stages.
struct LoadedModel {
  std::filesystem::path path;
  std::string key;  // content of the weights
  ModelWeights weights;
  Geometry geometry;
  std::shared_ptr<const Tokenizer> tokenizer;
};

// Throws as load_model and load_tokenizer, and Error(kFormat) for a tokenizer with more ids than
// the embedding has rows.
[[nodiscard]] LoadedModel open_model(const std::filesystem::path& path, const c10::Device& device,
                                     c10::ScalarType type);

// One answer of rank 0's to each of `count` questions, on every rank; `says` is asked on rank 0
// alone.
[[nodiscard]] std::vector<bool> ask_first_rank(Communicator& communicator, std::size_t count,
                                               const std::function<bool(std::size_t)>& says);

// Seconds since construction, for stage records.
class Stopwatch {
 public:
  Stopwatch();
  [[nodiscard]] double seconds() const;

 private:
  std::int64_t start_ns_;
};

}  // namespace puzzle
