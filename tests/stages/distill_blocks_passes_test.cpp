// Two passes, two ranks, two places for states: ways through distill-blocks that must not change
// what comes out.
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/options.h"
#include "stages/distill_run.h"
#include "support/expect_error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

using test::DistillRun;
using test::same_tensors;
using test::usual_options;

// The passes of a run in order, as the pipeline makes them.
std::vector<DistillBlocksResult> run_passes(DistillRun& run, const DistillBlocksOptions& options) {
  std::vector<DistillBlocksResult> results;
  DistillBlocksInput input{run.start.folder, run.start.key};
  for (const DistillBlocksOptions& pass : distill_blocks_passes(options)) {
    results.push_back(distill_blocks(run.context, run.parent, input, run.space, *run.calibration,
                                     *run.validation, pass));
    input = {results.back().folder, results.back().key};
  }
  return results;
}

DistillBlocksOptions with_blocks(const std::vector<std::string>& pairs) {
  DistillBlocksOptions options = usual_options();
  options.mode = "coupled";
  options.pairs = pairs;
  return options;
}

TEST(DistillBlocksPasses, ARunWithoutPairsMakesOne) {
  const auto passes = distill_blocks_passes(usual_options());
  ASSERT_EQ(passes.size(), 1U);
  EXPECT_EQ(passes[0].mode, "decoupled");
}

TEST(DistillBlocksPasses, CoupledStartsFromDecoupledAndKeepsTheHalves) {
  DistillRun run;
  const DistillBlocksOptions options = with_blocks({"kv1/w32", "1:linear/none"});
  const auto results = run_passes(run, options);
  ASSERT_EQ(results.size(), 2U);
  const auto& [halves, whole] = std::pair{results[0], results[1]};
  const auto rows = run.rows();
  EXPECT_EQ(rows.size(), 3U * 6U + 4U);  // the halves' rows stay
  for (const char* name :
       {"0/block/kv1/w32", "1/block/kv1/w32", "2/block/kv1/w32", "1/block/linear/none"}) {
    EXPECT_EQ(rows.at(name).kept, "after") << name;
    EXPECT_LT(*rows.at(name).loss_after, *rows.at(name).loss_before) << name;
    EXPECT_EQ(rows.at(name).init, "paper");
  }
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const LayerLibrary start = run.load_from(run.start.folder, layer);
    const LayerLibrary before = run.load_from(halves.folder, layer);
    const LayerLibrary after = run.load_from(whole.folder, layer);
    EXPECT_TRUE(before.coupled.empty());
    EXPECT_EQ(after.coupled.size(), layer == 1 ? 2U : 1U);
    // What is outside the pairs has been trained as well, and stays as the first pass left it.
    EXPECT_FALSE(
        same_tensors(start.ffn.at(FfnSpec::swiglu(64)), after.ffn.at(FfnSpec::swiglu(64))));
    for (const auto& [spec, weights] : before.attention) {
      EXPECT_TRUE(same_tensors(weights, after.attention.at(spec))) << spec.name();
    }
    for (const auto& [spec, weights] : before.ffn) {
      EXPECT_TRUE(same_tensors(weights, after.ffn.at(spec))) << spec.name();
    }
    const LayerWeights& pair = after.coupled.at({AttentionSpec::gqa(1), FfnSpec::swiglu(32)});
    EXPECT_FALSE(at::equal(pair.attention.k, before.attention.at(AttentionSpec::gqa(1)).k));
    EXPECT_FALSE(at::equal(pair.ffn.gate, before.ffn.at(FfnSpec::swiglu(32)).gate));
    EXPECT_TRUE(at::equal(pair.ffn.norm, before.ffn.at(FfnSpec::swiglu(32)).norm));
  }
}

TEST(DistillBlocksPasses, AResumedRunMakesTheSameBytes) {
  DistillRun run;
  const DistillBlocksOptions options = with_blocks({"kv1/w32"});
  const auto first = run_passes(run, options);
  const std::string bytes = run.file_bytes(first[1].folder, 1);
  const auto rows = run.db.dump_json({.times = false, .rows = RowSet::kCurrent});
  std::filesystem::remove(layer_file(first[1].folder, 1));
  const auto again = run_passes(run, options);
  EXPECT_EQ(again[0].layers_found, 3);
  EXPECT_EQ(again[1].layers_found, 2);
  EXPECT_EQ(run.file_bytes(again[1].folder, 1), bytes);
  EXPECT_TRUE(run.db.dump_json({.times = false, .rows = RowSet::kCurrent}) == rows);
}

TEST(DistillBlocksPasses, RowsOfAnotherLibraryAreNotCurrent) {
  DistillRun run;
  (void)run_passes(run, with_blocks({"kv1/w32"}));
  EXPECT_EQ(run.rows().size(), 3U * 6U + 3U);
  // Pairs trained straight from the first library: the halves' rows are about another one.
  (void)run.distill(with_blocks({"kv1/w32"}));
  EXPECT_EQ(run.rows().size(), 3U);
  // A decoupled pass makes the pairs outdated.
  (void)run.distill(usual_options());
  EXPECT_EQ(run.rows().size(), 3U * 6U);
}

void expect_same_over_ranks(const DistillBlocksOptions& options) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // what a new thread has
  DistillRun one;
  const auto want = run_passes(one, options);
  for (const int size : {2, 7}) {  // the latter leaves ranks without any variant
    DistillRun many;
    std::vector<DistillBlocksResult> got(static_cast<std::size_t>(size));
    RunDb other_ranks(many.folder / "other.db");
    test::ThreadGroup::run(size, [&](Communicator& communicator) {
      at::set_num_threads(1);
      RunContext context{many.folder.path(), communicator.is_first() ? many.db : other_ranks,
                         communicator};
      DistillBlocksInput input{many.start.folder, many.start.key};
      for (const DistillBlocksOptions& pass : distill_blocks_passes(options)) {
        const DistillBlocksResult result = distill_blocks(
            context, many.parent, input, many.space, *many.calibration, *many.validation, pass);
        input = {result.folder, result.key};
        got[static_cast<std::size_t>(communicator.rank())] = result;
      }
    });
    for (const DistillBlocksResult& result : got) {
      EXPECT_EQ(result.key, want[1].key);
      EXPECT_EQ(result.layers_made, 3);
    }
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(many.file_bytes(got[0].folder, layer), one.file_bytes(want[1].folder, layer));
    }
    EXPECT_TRUE(many.db.dump_json({.times = false}) == one.db.dump_json({.times = false}));
    EXPECT_TRUE(other_ranks.variants(RowSet::kAll).empty());
  }
  at::set_num_threads(threads);
}

TEST(DistillBlocksPasses, VariantsAreDividedOverRanksWithoutAChange) {
  DistillBlocksOptions options = with_blocks({"kv1/w32", "kv2/w64", "1:linear/none"});
  for (const std::string widths : {"separate", "nested"}) {
    SCOPED_TRACE(widths);
    options.widths = widths;
    expect_same_over_ranks(options);
  }
}

std::vector<std::string> files_below(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      names.push_back(std::filesystem::relative(entry.path(), folder).string());
    }
  }
  std::ranges::sort(names);
  return names;
}

TEST(DistillBlocksPasses, StatesOnDiskChangeNothing) {
  DistillRun in_memory;
  const DistillBlocksResult want = in_memory.distill(usual_options());
  DistillRun on_disk;
  DistillBlocksOptions options = usual_options();
  options.state_memory_mib = 0;
  const DistillBlocksResult got = on_disk.distill(options);
  EXPECT_EQ(got.key, want.key);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(on_disk.file_bytes(got.folder, layer), in_memory.file_bytes(want.folder, layer));
  }
  EXPECT_TRUE(on_disk.db.dump_json({.times = false}) == in_memory.db.dump_json({.times = false}));
  EXPECT_EQ(files_below(on_disk.folder.path()), files_below(in_memory.folder.path()));
  // A resumed run walks through the layers before the lost one.
  std::filesystem::remove(layer_file(got.folder, 2));
  EXPECT_EQ(on_disk.distill(options).layers_made, 1);
  EXPECT_EQ(on_disk.file_bytes(got.folder, 2), in_memory.file_bytes(want.folder, 2));
}

}  // namespace
}  // namespace puzzle
