// The fits of repair (repair.h), layer after layer. Private to this layer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>

#include "puzzle/data/token_split.h"
#include "puzzle/model/weights.h"
#include "puzzle/stages/repair.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

// The refitted child, and how many matrices changed. `folder` keeps what finished layers changed,
// for a later call after a kill; the caller removes it. Throws as repair().
[[nodiscard]] std::pair<ModelWeights, std::int64_t> repair_layers(
    RunContext& context, const LoadedModel& parent, LoadedModel child, const TokenPart& calibration,
    const TokenPart& validation, const RepairOptions& options, std::filesystem::path folder);

}  // namespace puzzle
