// What `puzzle inspect` says about a model, and `puzzle plan` about a configuration: geometry,
// layers, and parameters and bytes per part, as text or JSON.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/arch/cost.h"
#include "puzzle/arch/model_spec.h"
#include "puzzle/formats/stored_tensor.h"

namespace puzzle {

// One row: "embedding", "attention", "ffn", "norms", "head" or "other" (in this order; empty rows
// are left out; biases count with their matrices).
struct PartSize {
  std::string part;
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;
  std::vector<std::string> types;  // of its tensors, sorted: {"F32", "Q4_1"}

  bool operator==(const PartSize&) const = default;
};

// Of a file's tensors, told apart by Hugging Face or GGUF names; rope_freqs.weight is no parameter.
[[nodiscard]] std::vector<PartSize> part_sizes(std::span<const StoredTensor> tensors);
// Of a model stored as the target does it in these types. The sums are those of model_cost.
[[nodiscard]] std::vector<PartSize> part_sizes(const ModelSpec& spec, ExportTarget target,
                                               const WeightTypes& types);

// Several lines, ending in a newline. The KV cache is counted in F16.
[[nodiscard]] std::string describe(const ModelSpec& spec, const std::vector<PartSize>& parts);
[[nodiscard]] nlohmann::json describe_json(const ModelSpec& spec,
                                           const std::vector<PartSize>& parts);

}  // namespace puzzle
