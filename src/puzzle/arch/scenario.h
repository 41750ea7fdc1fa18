// The workload a child is built for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/formats/dtype.h"

namespace puzzle {

class OptionList;

struct Scenario {
  std::int64_t prompt_tokens = 128;       // P, per sequence
  std::int64_t generated_tokens = 128;    // G, per sequence; the first comes out of prefill
  std::vector<std::int64_t> batch = {1};  // batch sizes the search may choose from
  std::string cache_type = "f16";         // of the KV cache: f16, f32, bf16, q8_0, fp8

  [[nodiscard]] DType cache_dtype() const;

  void visit(OptionList& list);
};

}  // namespace puzzle
