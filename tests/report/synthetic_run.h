// A made-up run of any depth with rows in every table, for looking at the report and testing it.
// Nothing here was measured.
#pragma once

#include <cstdint>

#include "puzzle/results/run_db.h"

namespace puzzle::test {

struct SyntheticRun {
  std::int64_t num_layers = 30;
  bool is_long = true;  // all variants and curve points; else a few
};

void fill_synthetic_run(RunDb& db, const SyntheticRun& run);

}  // namespace puzzle::test
