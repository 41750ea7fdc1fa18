#include <cstdlib>

#include <unistd.h>

#include "puzzle/app/command_line.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

// OpenMP reads the policy when it is loaded, before main. Spinning threads make everything many
// times slower on a machine that does anything else, so start again with the other policy.
void prefer_passive_waiting(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) {
    ::setenv("OMP_WAIT_POLICY", "PASSIVE", 1);
    ::execv("/proc/self/exe", argv);
  }
}

}  // namespace
}  // namespace puzzle

int main(int argc, char** argv) {
  puzzle::prefer_passive_waiting(argv);
  puzzle::keep_freed_memory();
  puzzle::log_torch_warnings();
  return puzzle::run_program(argc, argv);
}
