// What no single option can know about itself.
#pragma once

#include "puzzle/app/recipe.h"
#include "puzzle/arch/model_spec.h"

namespace puzzle {

// Checks everything that can be known before anything expensive starts, and reports all of it at
// once: names, paths, budgets that no child of the search space can meet, formats that cannot hold
// the parent, settings that contradict each other or decide nothing. Relative paths count from the
// current folder. Throws Error(kUsage) listing every problem; Error(kInfeasible) where budgets are
// the only one. Settings that decide nothing are let pass where several recipes share a file, and
// texts may be missing where they are not read.
enum class UselessSettings { kRefuse, kLetPass };
enum class CorpusCheck { kMustExist, kMayBeMissing };
void validate(const Recipe& recipe, const ModelSpec& parent,
              UselessSettings useless = UselessSettings::kRefuse,
              CorpusCheck corpus = CorpusCheck::kMustExist);

// The parent of a recipe, without its tensors, once the recipe is validated with it. Throws as
// validate() and load_model_spec(), Error(kUsage) where the recipe names no model.
[[nodiscard]] ModelSpec load_validated_parent(const Recipe& recipe, UselessSettings useless,
                                              CorpusCheck corpus = CorpusCheck::kMustExist);

// The programs outside this one that the stages up to `last` run. Throws Error(kIo) where one is
// missing, with advice.
void check_programs(const Recipe& recipe, const std::string& last);

}  // namespace puzzle
