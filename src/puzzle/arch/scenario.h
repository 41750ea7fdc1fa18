// The workload a child is built for (DESIGN 1).
#pragma once

#include <cstdint>
#include <vector>

namespace puzzle {

class OptionList;

struct Scenario {
  std::int64_t prompt_tokens = 128;       // P, per sequence
  std::int64_t generated_tokens = 128;    // G, per sequence; the first comes out of prefill
  std::vector<std::int64_t> batch = {1};  // batch sizes the search may choose from

  void visit(OptionList& list);
};

}  // namespace puzzle
