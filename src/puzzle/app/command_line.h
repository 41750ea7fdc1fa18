// The whole program but for main: parses the command line, runs one verb, turns errors into one
// line (with --json also one JSON object) and an exit code.
#pragma once

namespace puzzle {

[[nodiscard]] int run_program(int argc, char** argv);

}  // namespace puzzle
