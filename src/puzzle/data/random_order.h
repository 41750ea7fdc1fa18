// Random permutations that are the same on every machine and standard library.
#pragma once

#include <cstdint>
#include <vector>

namespace puzzle {

// 0 … count-1 in an order that depends on the seed alone (Fisher-Yates over SplitMix64).
[[nodiscard]] std::vector<std::int64_t> random_order(std::int64_t count, std::uint64_t seed);

}  // namespace puzzle
