#include "puzzle/data/token_batches.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/toy_corpus.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

// Windows of 2 tokens, all different: window w is {a + 2w, a + 2w + 1}.
TokenPart make_part(const test::ToyCorpus& corpus, std::int64_t num_windows) {
  std::vector<std::int64_t> starts;
  for (std::int64_t w = 0; w < num_windows; ++w) {
    starts.push_back(2 * w);
  }
  return {"train", corpus.load(), starts, {.window = 2, .cross_documents = true}};
}

const std::string kAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

TEST(ShareOf, DividesWithoutGapsAndAsEvenlyAsItCan) {
  for (const std::int64_t count : {0, 1, 7, 8, 100}) {
    for (const int size : {1, 2, 3, 8}) {
      std::int64_t next = 0;
      for (int rank = 0; rank < size; ++rank) {
        const IndexRange mine = share_of(count, {rank, size});
        EXPECT_EQ(mine.begin, next);
        EXPECT_GE(mine.count(), count / size);
        EXPECT_LE(mine.count(), count / size + 1);
        next = mine.end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(TokenBatches, ShowsEveryWindowOncePerEpochInANewOrder) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  TokenBatches batches(make_part(corpus, 24), {.batch_windows = 4, .seed = 3});
  EXPECT_EQ(batches.batches_per_epoch(), 6);
  std::vector<std::vector<std::int64_t>> epochs;
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> all;
    for (std::int64_t k = 0; k < 6; ++k) {
      const auto positions = batches.positions(epoch * 6 + k);
      EXPECT_EQ(positions.size(), 4U);
      all.insert(all.end(), positions.begin(), positions.end());
    }
    epochs.push_back(all);
    std::sort(all.begin(), all.end());
    std::vector<std::int64_t> expected(24);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST(TokenBatches, LeavesDifferentWindowsOutOfEachShuffledEpoch) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  TokenBatches batches(make_part(corpus, 23), {.batch_windows = 4, .seed = 3});
  EXPECT_EQ(batches.batches_per_epoch(), 5);
  std::set<std::int64_t> seen;
  for (std::int64_t k = 0; k < 5 * 20; ++k) {
    for (const std::int64_t position : batches.positions(k)) {
      seen.insert(position);
    }
  }
  EXPECT_EQ(seen.size(), 23U);
}

TEST(TokenBatches, GoesOnAfterAResumeAsIfNothingHadHappened) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  const BatchOptions options{.batch_windows = 5, .seed = 11};
  TokenBatches uninterrupted(make_part(corpus, 26), options);
  for (std::int64_t k = 0; k < 23; ++k) {
    const TokenBatch expected = uninterrupted.batch(k);
    TokenBatches resumed(make_part(corpus, 26), options);
    EXPECT_TRUE(resumed.batch(k).tokens_BT.equal(expected.tokens_BT)) << k;
  }
  TokenBatches backwards(make_part(corpus, 26), options);
  for (std::int64_t k = 22; k >= 0; --k) {
    EXPECT_EQ(backwards.positions(k), uninterrupted.positions(k));
  }
  TokenBatches other(make_part(corpus, 26), {.batch_windows = 5, .seed = 12});
  EXPECT_NE(other.positions(0), uninterrupted.positions(0));
}

TEST(TokenBatches, GivesRanksSharesThatMakeUpTheWholeBatch) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  for (const BatchOrder order : {BatchOrder::kShuffled, BatchOrder::kInOrder}) {
    for (const int size : {2, 3, 7}) {
      TokenBatches one(make_part(corpus, 25), {.batch_windows = 6, .order = order, .seed = 1});
      for (std::int64_t k = 0; k < 2 * one.batches_per_epoch(); ++k) {
        std::vector<at::Tensor> tokens;
        std::vector<at::Tensor> labels;
        for (int rank = 0; rank < size; ++rank) {
          TokenBatches mine(make_part(corpus, 25), {.batch_windows = 6, .order = order, .seed = 1});
          const TokenBatch share = mine.batch(k, {rank, size});
          tokens.push_back(share.tokens_BT);
          labels.push_back(share.labels_BT);
        }
        const TokenBatch whole = one.batch(k);
        EXPECT_TRUE(at::cat(tokens).equal(whole.tokens_BT));
        EXPECT_TRUE(at::cat(labels).equal(whole.labels_BT));
      }
    }
  }
}

TEST(TokenBatches, KeepsTheOrderAndTheRestIfNotShuffled) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  TokenBatches batches(make_part(corpus, 10), {.batch_windows = 4, .order = BatchOrder::kInOrder});
  EXPECT_EQ(batches.batches_per_epoch(), 3);
  EXPECT_EQ(batches.positions(1), (std::vector<std::int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(batches.positions(2), (std::vector<std::int64_t>{8, 9}));
  EXPECT_EQ(batches.positions(3), (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(batches.batch(2).tokens_BT[1][0].item<std::int64_t>(), test::toy(kAlphabet[18]));
}

TEST(TokenBatches, RefusesAPartThatFillsNoBatch) {
  const test::ToyCorpus corpus({test::Documents{kAlphabet}});
  EXPECT_PUZZLE_ERROR(TokenBatches(make_part(corpus, 3), {.batch_windows = 4}), ErrorKind::kUsage,
                      "the train part holds 3 windows of 2 tokens, expected at least 4");
  EXPECT_PUZZLE_ERROR(TokenBatches(make_part(corpus, 0), {.order = BatchOrder::kInOrder}),
                      ErrorKind::kUsage, "holds 0 windows");
}

}  // namespace
}  // namespace puzzle
