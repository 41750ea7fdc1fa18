// Stage `assemble`: a child from the library.
#pragma once

#include <filesystem>
#include <string>

#include "puzzle/stages/library.h"
#include "puzzle/stages/run_context.h"

namespace puzzle {

struct AssembleInput {
  std::filesystem::path library_folder;
  std::string library_key;
  Architecture architecture;  // one block per layer of the parent
  std::string name;           // the child's folder below children/
};

struct AssembleResult {
  std::filesystem::path folder;
  std::string key;
};

// Writes children/<name>, unless it holds the child of the same parent, library and architecture.
// Throws Error(kUsage) for a variant that the library lacks.
AssembleResult assemble(RunContext& context, const LoadedModel& parent, const AssembleInput& input);

}  // namespace puzzle
