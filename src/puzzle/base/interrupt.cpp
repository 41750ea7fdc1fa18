#include "puzzle/base/interrupt.h"

#include <csignal>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

volatile std::sig_atomic_t interrupt_flag = 0;

extern "C" void puzzle_on_interrupt(int signal_number) {
  interrupt_flag = 1;
  std::signal(signal_number, SIG_DFL);
}

}  // namespace

void install_interrupt_handlers() {
  std::signal(SIGINT, puzzle_on_interrupt);
  std::signal(SIGTERM, puzzle_on_interrupt);
}

bool interrupted() { return interrupt_flag != 0; }

void throw_if_interrupted() {
  if (interrupted()) {
    fail(ErrorKind::kInterrupted,
         "stopped by a signal; run the same command again to go on from here");
  }
}

}  // namespace puzzle
