// Batches of a part's windows: batch k depends on (part, options, k) alone, so a resumed run goes
// on with exactly the batches that an uninterrupted one would have seen, and every rank can work
// out its share without talking to the others.
#pragma once

#include <cstdint>
#include <vector>

#include "puzzle/data/token_split.h"

namespace puzzle {

struct RankShare {
  int rank = 0;
  int size = 1;
};

struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] std::int64_t count() const { return end - begin; }
};

// The contiguous share of `count` things that is this rank's; shares differ by at most one, and in
// rank order they make up the whole.
[[nodiscard]] IndexRange share_of(std::int64_t count, RankShare share);

enum class BatchOrder {
  kInOrder,   // the part's own order; the last batch of an epoch may be smaller
  kShuffled,  // a new order every epoch; windows that do not fill a batch wait for the next epoch
};

struct BatchOptions {
  std::int64_t batch_windows = 8;  // of all ranks together; >= 1
  BatchOrder order = BatchOrder::kShuffled;
  std::uint64_t seed = 0;  // for kShuffled
};

// Not thread-safe: keeps the order of one epoch.
class TokenBatches {
 public:
  // Throws Error(kUsage) for an empty part, and for a shuffled one smaller than a batch.
  TokenBatches(TokenPart part, BatchOptions options);

  [[nodiscard]] std::int64_t batches_per_epoch() const { return batches_per_epoch_; }
  // Positions in the part of the windows of batch `index` >= 0, which may lie in any epoch.
  [[nodiscard]] std::vector<std::int64_t> positions(std::int64_t index);
  // This rank's windows of batch `index`; in rank order the ranks' batches make up the whole one. A
  // rank may get no window at all ([0, T]) where a batch has fewer windows than there are ranks.
  [[nodiscard]] TokenBatch batch(std::int64_t index, RankShare share = {});

 private:
  const std::vector<std::int64_t>& epoch_order(std::int64_t epoch);

  TokenPart part_;
  BatchOptions options_;
  std::int64_t batches_per_epoch_ = 0;
  std::int64_t cached_epoch_ = -1;
  std::vector<std::int64_t> cached_order_;
};

}  // namespace puzzle
