#include "puzzle/base/cores.h"

#include <algorithm>
#include <thread>

#include <sched.h>

namespace puzzle {

std::int64_t usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) {
    return std::max(1, CPU_COUNT(&cores));
  }
  return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace puzzle
