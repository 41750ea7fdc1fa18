// Local search: the few best swaps around a solution, measured.
#pragma once

#include <cstdint>
#include <functional>

#include "puzzle/mip/problem.h"
#include "puzzle/stages/search_probe.h"

namespace puzzle {

// KL of a child, most of whose first layers are those of `base`.
using MeasureChild = std::function<MeasuredKl(const Assignment& child, const Assignment& base)>;

struct LocalResult {
  Assignment choices;
  MeasuredKl kl;
  std::int64_t num_measured = 0;
  std::int64_t num_accepted = 0;
};

// Swaps the blocks of one or two layers of `start` (whose KL is `start_kl`) within the problem's
// budgets and covers: of two layers one at least must be predicted to gain. Swaps are tried in the
// order of their predicted change less a quarter of its size (the root of the sum of its squared
// parts), as predictions err in proportion: else one would try those first that change nothing. A
// swap is accepted when its measured KL is lower, and the search goes on from there. What a swap
// did beyond its prediction is put down to its new choices in equal parts. Ends after `forwards`
// measurements, or when every swap has been tried. Never returns a child worse than `start`.
[[nodiscard]] LocalResult search_locally(const Problem& problem, const Assignment& start,
                                         const MeasuredKl& start_kl, std::int64_t forwards,
                                         const MeasureChild& measure);

}  // namespace puzzle
