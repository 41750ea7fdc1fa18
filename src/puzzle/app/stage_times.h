// How long the stages of a run took, over all sittings.
//
// A stage records its parts with their seconds (StageRecord). What a stage spends besides, and what
// it spends on parts of other stages (evaluate makes the children it compares with), is told apart
// here, so that all records together are the time worked, each second once. Work that a killed
// sitting did not bring to a record is not in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "puzzle/results/run_db.h"

namespace puzzle {

// One sitting of one stage: make it before the stage works, record() when it is done.
class StageSitting {
 public:
  StageSitting(const RunDb& db, std::string stage);

  // Adds the sitting to the stage's record of everything that no part accounts for: `seconds` less
  // those of all parts recorded meanwhile. The record appears even if that is nothing: a resumed
  // run has the records of an uninterrupted one. A sitting that found all done is not counted.
  void record(RunDb& db, double seconds, std::int64_t peak_memory_bytes) const;

 private:
  std::string stage_;
  std::set<std::string> parts_;  // keys of all stages' parts before
  std::size_t num_evaluations_ = 0;
};

struct StageTotal {
  std::string stage;
  double seconds = 0.0;                // of all its records
  std::int64_t peak_memory_bytes = 0;  // of the process, at the stage's end; 0: not finished yet
};

// In the order of the names in `stages`; only those with records.
[[nodiscard]] std::vector<StageTotal> stage_totals(const RunDb& db,
                                                   const std::vector<std::string>& stages);

}  // namespace puzzle
