#include "puzzle/base/hash.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

std::string key_of_pairs(const std::vector<std::pair<std::string, std::string>>& pairs) {
  KeyBuilder builder;
  for (const auto& [label, value] : pairs) {
    builder.add(label, value);
  }
  return builder.key();
}

TEST(Hash, LabelsAndOrderAndBoundariesMatter) {
  const std::set<std::string> keys = {
      key_of_pairs({}),
      key_of_pairs({{"a", "b"}}),
      key_of_pairs({{"b", "a"}}),
      key_of_pairs({{"a", "b"}, {"c", "d"}}),
      key_of_pairs({{"c", "d"}, {"a", "b"}}),
      key_of_pairs({{"a", "bc"}, {"", "d"}}),
      key_of_pairs({{"ab", ""}}),
      key_of_pairs({{"", "ab"}}),
      key_of_pairs({{"a", "b1:c1:d"}}),
  };
  EXPECT_EQ(keys.size(), 9U);
  for (const std::string& key : keys) {
    EXPECT_EQ(key.size(), 32U);
    EXPECT_EQ(key.find_first_not_of("0123456789abcdef"), std::string::npos) << key;
  }
}

TEST(Hash, TypesOfValuesAreTold) {
  const auto one = [](auto value) {
    KeyBuilder builder;
    builder.add("x", value);
    return builder.key();
  };
  EXPECT_NE(one(1.0), one(1));
  EXPECT_NE(one(0.0), one(-0.0));
  EXPECT_NE(one(0.1), one(0.1 + 1e-17 * 3));  // next double
  EXPECT_EQ(one(1), one(std::int64_t{1}));
  EXPECT_EQ(one("text"), one(std::string_view("text")));  // not taken for a bool
  EXPECT_NE(one("text"), one(true));
}

// Keys of finished work are on disk: they must never change with a release.
TEST(Hash, KeysAreStable) {
  EXPECT_EQ(key_of_pairs({{"stage", "score"}, {"version", "1"}}),
            "cec213c1914b57b3b92272aea9bba0d0");
  KeyBuilder builder;
  builder.add("rate", 1e-3).add("count", 7).add("on", true);
  EXPECT_EQ(builder.key(), "d425925956701d0c1b83f79a2d424845");
}

// So are the streams of random numbers.
TEST(Hash, SeedsAreStable) {
  EXPECT_EQ(derive_seed(0, ""), 3244421341483603138U);
  EXPECT_EQ(derive_seed(1, "distill-blocks/layer 7/w768"), 9754638404152523927U);
  EXPECT_EQ(derive_seed(2, "distill-blocks/layer 7/w768"), 14915289544176704229U);
}

TEST(Hash, SeedsDifferByPurposeAndSeed) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    for (int layer = 0; layer < 50; ++layer) {
      seeds.insert(derive_seed(seed, "layer " + std::to_string(layer)));
    }
  }
  EXPECT_EQ(seeds.size(), 2500U);
}

TEST(Hash, FileKeyIsThatOfItsBytes) {
  const test::TempDir folder;
  write_text_file(folder / "a", "content");
  write_text_file(folder / "b", "content");
  write_text_file(folder / "c", "Content");
  write_text_file(folder / "empty", "");
  EXPECT_EQ(hash_file(folder / "a"), hash_file(folder / "b"));
  EXPECT_NE(hash_file(folder / "a"), hash_file(folder / "c"));
  EXPECT_EQ(hash_file(folder / "empty").size(), 32U);
  EXPECT_PUZZLE_ERROR((void)hash_file(folder / "absent"), ErrorKind::kIo, "absent: cannot open it");
}

}  // namespace
}  // namespace puzzle
