// What run.db says of a layer's students after block-local distillation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/results/run_db.h"
#include "puzzle/stages/block_ranks.h"

namespace puzzle {

struct TrainingFacts {
  std::string key;  // of the layer's rows
  std::string stage;
  std::int64_t layer = 0;
  std::string init;              // how the variants were initialised
  std::int64_t tokens = 0;       // trained on in all
  std::int64_t step_tokens = 0;  // of one step
};

// One row per variant of the student.
void add_variant_rows(const TrainingFacts& facts, const TrainedVariant& variant,
                      std::vector<VariantRow>& rows);

// One series per student, "layer 7/attention/kv1" or "layer 7/ffn/nested".
void add_curve_rows(const TrainingFacts& facts, const TrainedVariant& variant,
                    std::vector<CurveRow>& rows);

}  // namespace puzzle
