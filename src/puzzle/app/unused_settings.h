// Settings of a recipe that decide nothing because of other settings.
#pragma once

#include <string>
#include <vector>

#include "puzzle/app/recipe.h"

namespace puzzle {

// One sentence for every option that differs from its default without having any effect, e.g.
// "measure.table has no effect: measure.engine is native". Settings of a stage that is switched off
// (train_child, throughput.enabled, …) are let pass, so that one setting switches it.
[[nodiscard]] std::vector<std::string> unused_settings(const Recipe& recipe);

}  // namespace puzzle
