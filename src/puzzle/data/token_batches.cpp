#include "puzzle/data/token_batches.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/data/random_order.h"

namespace puzzle {

IndexRange share_of(std::int64_t count, RankShare share) {
  PUZZLE_CHECK(share.size >= 1 && share.rank >= 0 && share.rank < share.size, "rank {} of {}",
               share.rank, share.size);
  // The first count % size ranks take one more.
  const std::int64_t each = count / share.size;
  const std::int64_t extra = count % share.size;
  const std::int64_t begin = share.rank * each + std::min<std::int64_t>(share.rank, extra);
  return {begin, begin + each + (share.rank < extra ? 1 : 0)};
}

TokenBatches::TokenBatches(TokenPart part, BatchOptions options)
    : part_(std::move(part)), options_(options) {
  PUZZLE_CHECK(options_.batch_windows >= 1, "a batch of {} windows", options_.batch_windows);
  const std::int64_t windows = part_.num_windows();
  const bool drops_last = options_.order == BatchOrder::kShuffled;
  batches_per_epoch_ = drops_last ? windows / options_.batch_windows
                                  : (windows + options_.batch_windows - 1) / options_.batch_windows;
  if (batches_per_epoch_ == 0) {
    fail(ErrorKind::kUsage,
         "data: the {} part holds {} windows of {} tokens, expected at least {}; give it more "
         "tokens{}",
         part_.name(), windows, part_.window(), drops_last ? options_.batch_windows : 1,
         drops_last ? " or make the batch smaller" : "");
  }
}

const std::vector<std::int64_t>& TokenBatches::epoch_order(std::int64_t epoch) {
  if (options_.order == BatchOrder::kInOrder) {
    epoch = 0;
  }
  if (epoch != cached_epoch_) {
    if (options_.order == BatchOrder::kInOrder) {
      cached_order_.resize(static_cast<std::size_t>(part_.num_windows()));
      std::iota(cached_order_.begin(), cached_order_.end(), 0);
    } else {
      cached_order_ = random_order(
          part_.num_windows(), derive_seed(options_.seed, fmt::format("batches/epoch {}", epoch)));
    }
    cached_epoch_ = epoch;
  }
  return cached_order_;
}

std::vector<std::int64_t> TokenBatches::positions(std::int64_t index) {
  PUZZLE_CHECK(index >= 0, "batch {}", index);
  const std::vector<std::int64_t>& order = epoch_order(index / batches_per_epoch_);
  const std::int64_t begin = index % batches_per_epoch_ * options_.batch_windows;
  const std::int64_t end = std::min(begin + options_.batch_windows, part_.num_windows());
  return {order.begin() + begin, order.begin() + end};
}

TokenBatch TokenBatches::batch(std::int64_t index, RankShare share) {
  const std::vector<std::int64_t> all = positions(index);
  const IndexRange mine = share_of(std::ssize(all), share);
  return part_.gather(std::span(all).subspan(static_cast<std::size_t>(mine.begin),
                                             static_cast<std::size_t>(mine.count())));
}

}  // namespace puzzle
