#include "puzzle/stages/token_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <ATen/ATen.h>

#include "puzzle/base/error.h"
#include "puzzle/stages/held_states.h"

namespace puzzle {
namespace {

constexpr double kSmallestNorm2 = 1e-20;  // tokens of a zero state weigh no more than this says

// Every rank's numbers in the order of the ranks.
std::vector<float> gather_floats(std::span<const float> mine, Communicator& communicator) {
  const std::string_view bytes(reinterpret_cast<const char*>(mine.data()), mine.size_bytes());
  std::vector<float> all;
  for (const std::string& part : communicator.all_gather_strings(bytes)) {
    const std::size_t old_size = all.size();
    all.resize(old_size + part.size() / sizeof(float));
    std::memcpy(all.data() + old_size, part.data(), part.size());
  }
  return all;
}

}  // namespace

at::Tensor token_weights(const at::Tensor& states, const std::string& rule, double median) {
  if (rule == "none") {
    return {};
  }
  return squared_norms(states).clamp_min(std::max(median, kSmallestNorm2)).reciprocal();
}

double median_over_ranks(std::span<const float> mine, Communicator& communicator,
                         std::string_view place) {
  std::vector<float> all = gather_floats(mine, communicator);
  if (!std::ranges::all_of(all, [](float value) { return std::isfinite(value); })) {
    fail(ErrorKind::kNumeric,
         "{}: the parent's hidden states are not finite; are its weights sound in this numeric "
         "type?",
         place);
  }
  PUZZLE_CHECK(!all.empty(), "no tokens");
  const auto middle = all.begin() + std::ssize(all) / 2;
  std::ranges::nth_element(all, middle);
  return *middle;
}

}  // namespace puzzle
