#include "puzzle/stages/held_states.h"

#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "stages/library_run.h"
#include "support/expect_close.h"

namespace puzzle {
namespace {

using test::library_spec;
using test::LibraryRun;

TEST(HeldStates, DocumentsDoNotSeeEachOtherWhereThePartForbidsIt) {
  LibraryRun run(library_spec(), false);
  const c10::NoGradGuard no_grad;
  const ModelWeights& parent = run.parent.weights;
  HeldStates states(run.parent, *run.calibration, {}, 64);
  EXPECT_EQ(states.num_batches(), 10);
  EXPECT_EQ(states.num_windows(), 38);
  EXPECT_EQ(states.num_windows(9), 2);
  states.advance(parent.layers[0]);
  // Window 1 holds tokens 16 … 31: the last 8 of the first document, then 8 of the second.
  const at::Tensor tokens = run.calibration->slice(1, 1).tokens_BT;
  std::vector<at::Tensor> parts;
  for (const std::int64_t first : {0, 8}) {
    parts.push_back(apply_layer(parent.layers[0], run.parent.geometry,
                                embed(parent, tokens.narrow(1, first, 8)),
                                make_pass(run.parent.geometry, 8, at::kFloat, at::kCPU)));
  }
  EXPECT_CLOSE(states.states(0).narrow(0, 1, 1), at::cat(parts, 1), 1e-5);
}

TEST(HeldStates, SampledNormsAreThoseOfEveryNthWindow) {
  for (const bool cross_documents : {true, false}) {
    LibraryRun run(library_spec(), cross_documents);
    const LayerWeights& layer = run.parent.weights.layers[0];
    HeldStates all(run.parent, *run.calibration, {}, 1 << 20);
    all.advance(layer);
    const at::Tensor want = all.states(0).slice(0, 0, std::nullopt, 5).square().sum(-1).flatten();
    std::vector<float> got;
    for (int rank = 0; rank < 3; ++rank) {
      const HeldStates share(run.parent, *run.calibration, {rank, 3}, 48);
      const std::vector<float> part = share.sampled_norms(layer, 5);
      got.insert(got.end(), part.begin(), part.end());
    }
    EXPECT_CLOSE(at::tensor(got), want, 1e-3);
  }
}

TEST(HeldStates, AreTheSameInMemoryOnDiskAndInBoth) {
  for (const bool cross_documents : {true, false}) {
    LibraryRun run(library_spec(), cross_documents);
    const auto& layers = run.parent.weights.layers;
    HeldStates in_memory(run.parent, *run.calibration, {}, 64);
    EXPECT_EQ(in_memory.num_batches(), 10);
    in_memory.advance(layers[0]);
    const std::int64_t batch_bytes = 4 * 16 * 64 * 4;
    EXPECT_EQ(in_memory.memory_bytes(), 10 * batch_bytes);
    for (const std::int64_t kept : {0, 1, 9}) {
      const StateMemory memory{kept * batch_bytes + 1, run.folder.path()};
      HeldStates spilled(run.parent, *run.calibration, {}, 64, memory);
      EXPECT_EQ(spilled.memory_bytes(), kept * batch_bytes);
      spilled.advance(layers[0]);
      EXPECT_EQ(spilled.sampled_norms(layers[1], 3), in_memory.sampled_norms(layers[1], 3));
      for (std::int64_t batch = 0; batch < 10; ++batch) {
        EXPECT_TRUE(at::equal(spilled.states(batch), in_memory.states(batch))) << batch;
        EXPECT_EQ(spilled.pass(batch).mask.defined(), in_memory.pass(batch).mask.defined());
      }
    }
  }
}

}  // namespace
}  // namespace puzzle
