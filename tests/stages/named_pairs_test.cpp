#include "puzzle/stages/named_pairs.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/tiny_model.h"

namespace puzzle {
namespace {

struct PairSpace {
  PairSpace() {
    // The parent's own second layer differs: kv2/w96.
    parent.layers[1].attention = AttentionSpec::gqa(2);
    const std::vector<FfnSpec> ffn = {FfnSpec::swiglu(96), FfnSpec::swiglu(32), FfnSpec::none()};
    space.layers = {{{AttentionSpec::gqa(4), AttentionSpec::gqa(2), AttentionSpec::none()}, ffn},
                    {{AttentionSpec::gqa(2), AttentionSpec::none()}, ffn},
                    {{AttentionSpec::gqa(4)}, {FfnSpec::swiglu(96)}}};  // skipped
  }
  [[nodiscard]] std::vector<std::vector<BlockSpec>> named(
      const std::vector<std::string>& pairs) const {
    return pairs_by_layer("stage.pairs", pairs, parent, space);
  }

  ModelSpec parent = test::tiny_spec(3);
  SearchSpace space;
};

TEST(NamedPairs, LayersTakeWhatTheyAllow) {
  const BlockSpec pair{AttentionSpec::gqa(2), FfnSpec::swiglu(32)};
  const BlockSpec empty{AttentionSpec::none(), FfnSpec::none()};
  const PairSpace space;
  // In layer 1, kv2 is the parent's own; layer 2 has no choice.
  EXPECT_EQ(space.named({"kv2/w32"}), (std::vector<std::vector<BlockSpec>>{{pair}, {}, {}}));
  EXPECT_EQ(space.named({"kv2/w32", "none/none", "0:kv2/w32"}),
            (std::vector<std::vector<BlockSpec>>{{pair, empty}, {empty}, {}}));
  EXPECT_EQ(space.named({"1:none/none"}), (std::vector<std::vector<BlockSpec>>{{}, {empty}, {}}));
  EXPECT_EQ(space.named({}), (std::vector<std::vector<BlockSpec>>{{}, {}, {}}));
}

TEST(NamedPairs, RefusesWhatNoLayerTakes) {
  const PairSpace space;
  const auto expect = [&](const std::string& pair, const std::string& message) {
    EXPECT_PUZZLE_ERROR((void)space.named({pair}), ErrorKind::kUsage,
                        "stage.pairs: '" + pair + "': " + message);
  };
  expect("kv2", "block 'kv2': expected attention/ffn");
  expect("kv2/x", "FFN variant 'x'");
  expect("0:/w32", "attention variant ''");
  expect("3:kv2/w32", "expected a layer from 0 to 2 before the colon");
  expect("-1:kv2/w32", "expected a layer");
  expect("0x:kv2/w32", "expected a layer");
  expect(":kv2/w32", "expected a layer");
  expect("kv1/w32", "no layer it names has both halves in its search space");
  expect("2:kv2/w32", "no layer it names has both halves");
  expect("kv4/w32", "one half is the parent's own");
  expect("0:kv2/w96", "one half is the parent's own");
  expect("1:kv2/w32", "one half is the parent's own");
}

}  // namespace
}  // namespace puzzle
