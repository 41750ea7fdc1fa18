// SIGINT and SIGTERM as a flag that long loops look at.
#pragma once

namespace puzzle {

// First signal sets the flag; a second one ends the process at once (nothing written so far is
// lost: every file appears by rename, the run database is transactional).
void install_interrupt_handlers();
[[nodiscard]] bool interrupted();
// Throws Error(kInterrupted).
void throw_if_interrupted();

}  // namespace puzzle
