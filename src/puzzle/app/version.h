// This program's version, and what it was built with.
#pragma once

#include <string>

namespace puzzle {

extern const char* const kPuzzleVersion;
extern const char* const kGitRevision;

// "g++ 12.2.0, torch 2.13.0+cpu, git 1a2b3c4"
[[nodiscard]] std::string build_description();

}  // namespace puzzle
