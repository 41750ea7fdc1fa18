// What the texts of long_text_tasks.h share inside this layer.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "puzzle/base/hash.h"
#include "puzzle/data/long_text_tasks.h"
#include "puzzle/data/random_order.h"

namespace puzzle {

// Choices by purpose, so that how many of one kind are made changes none of another.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : seed_(seed) {}

  [[nodiscard]] std::uint64_t bits(std::string_view purpose) const {
    return derive_seed(seed_, purpose);
  }
  [[nodiscard]] double unit(std::string_view purpose) const {  // [0, 1)
    return std::ldexp(static_cast<double>(bits(purpose) >> 11U), -53);
  }
  [[nodiscard]] std::size_t below(std::string_view purpose, std::size_t bound) const {
    return static_cast<std::size_t>(bits(purpose) % bound);
  }
  [[nodiscard]] std::vector<std::int64_t> order(std::string_view purpose, std::size_t count) const {
    return random_order(static_cast<std::int64_t>(count), bits(purpose));
  }

 private:
  std::uint64_t seed_;
};

// Facts about made-up people, `units` of them besides those of the one that is asked about.
[[nodiscard]] LongTextDraft draft_question(const Draws& draws, std::int64_t units);

}  // namespace puzzle
