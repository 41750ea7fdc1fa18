// How many threads may compute at once.
#pragma once

#include <cstdint>

namespace puzzle {

// Logical cores that this process may run on (affinity, cpusets), at least 1.
[[nodiscard]] std::int64_t usable_cores();

}  // namespace puzzle
