#include "puzzle/stages/weight_types.h"

#include <algorithm>

#include "puzzle/formats/gguf.h"
#include "puzzle/stages/gguf_export.h"

namespace puzzle {

WeightTypes deployed_types(const std::string& name, const Scenario& scenario,
                           const std::filesystem::path& parent) {
  WeightTypes types;
  if (name == "fp8") {
    types.matrix = DType::kF8E4M3;
    types.embedding = DType::kBF16;
  } else {
    types = gguf_weight_types(name, parent);
  }
  types.kv = scenario.cache_dtype();
  return types;
}

bool is_stored_as(const std::filesystem::path& gguf, const WeightTypes& types) {
  const GgufFile file(gguf);
  return std::all_of(file.tensors().begin(), file.tensors().end(), [&](const StoredTensor& tensor) {
    if (tensor.shape.size() != 2) {
      return true;
    }
    const DType wanted = tensor.name.starts_with("blk.") ? types.matrix : types.embedding;
    return tensor.dtype == stored_dtype(wanted, tensor.shape.back());
  });
}

}  // namespace puzzle
