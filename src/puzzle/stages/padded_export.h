// The weights of a child as a uniform plain model of its parent's family (arch/padded_model.h).
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "puzzle/model/weights.h"

namespace puzzle {

// model.safetensors of padded_spec(child.spec), in `type` (kFloat, kHalf, kBFloat16); `metadata`
// goes into the header. A tensor is made when its turn comes, so that only one of those that are
// made for the file is there at a time. Throws Error(kUsage) where no plain model computes the same
// (refusal()), Error(kIo).
void write_padded_weights(const std::filesystem::path& file, const ModelWeights& child,
                          c10::ScalarType type, const std::map<std::string, std::string>& metadata);

}  // namespace puzzle
